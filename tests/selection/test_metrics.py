"""What an error in an output counts: against outputs of which it is known, and on every kind of network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import InputError
from compressor.selection.base import Calibration
from compressor.selection.methods.imitation import Imitation
from compressor.selection.metrics import METRICS, kfac
from compressor.selection.moment_method import moments_of
from compressor.structure import find_groups
from compressor.tasks.softmax import TEMPERATURE
from tests.networks import NETWORKS
from tests.selection.test_contract import calibration


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_metric_gives_each_output_a_positive_weight(kind: str, metric: str) -> None:
    given = calibration(kind)
    moments = moments_of(given)
    for name, scale in METRICS[metric](given, moments).items():
        assert scale.shape == moments[name].weight.shape[:2]
        assert scale.isfinite().all() and (scale >= 0).all() and scale.any()


def test_what_the_network_minds_of_its_own_outputs_is_their_fisher_information() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    with torch.no_grad():
        model[2].bias.copy_(TEMPERATURE * torch.tensor([3.0, 1.0, 0.0, 0.0, -3.0]))
    images = [(torch.randn(2048, 6),)]
    given = Calibration(model, find_groups(model, images[0][0][:1]), images, None, 0)
    shares = (model(images[0][0]) / TEMPERATURE).softmax(1)
    expected = (shares * (1 - shares)).mean(0).detach().double()
    found = kfac(given, moments_of(given))["2.weight"][0].square()
    torch.testing.assert_close(found / found.sum(), expected / expected.sum(), rtol=0.3, atol=0.01)


def test_outputs_that_nobody_reads_count_for_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[4].weight[:, 1] = 0
    images = [(torch.randn(64, 6),)]
    given = Calibration(model, find_groups(model, images[0][0][:1]), images, None, 0)
    scale = kfac(given, moments_of(given))["2.weight"][0]
    assert scale[1] == 0 and int((scale > 0).sum()) == 3


def test_a_metric_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="batch_norm, kfac"):
        Imitation(metric="euclid")
