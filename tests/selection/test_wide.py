"""Consumers with too many inputs for a matrix of all of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.selection import contributions as module
from compressor.selection import moments
from compressor.selection.base import Calibration, Method
from compressor.selection.consumers import covariance, owned
from compressor.selection.contributions import contributions
from compressor.selection.metrics import METRICS
from compressor.selection.moment_method import moments_of
from compressor.selection.moments import Moments
from compressor.selection.narrowed import narrowed
from compressor.structure import find_groups
from compressor.structure.groups import ChannelGroup
from tests.selection.test_closed_forms import METHODS

LOCAL = ["group_obs", "imitate_simplex", "imitation"]


def flattened() -> Calibration:
    """A convolution of 12 channels, read by a linear layer after a flatten: 12 x 16 inputs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(192, 150), nn.ReLU(), nn.Linear(150, 5)
    )
    images = [(torch.randn(50, 3, 6, 6),) for _ in range(8)]
    return Calibration(model.eval(), find_groups(model, images[0][0][:1]), images, None, 0)


def read(given: Calibration) -> tuple[ChannelGroup, Moments, dict[int, torch.Tensor]]:
    group = given.groups[0]
    (cut,) = (s for s in group.slices if s.role == "consumer")
    own = moments_of(given)[cut.tensor]
    return group, own, owned(own, cut)[0]


@pytest.mark.parametrize("center", [True, False])
def test_contributions_from_rows_are_those_from_products(center: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given, scale = flattened(), torch.rand(150, dtype=torch.float64)
    _, whole, members = read(given)
    expected = contributions(whole, 0, members, center, scale)
    monkeypatch.setattr(moments, "WIDE", 100)
    monkeypatch.setattr(module, "SKETCH", 150)
    _, wide, _ = read(given)
    assert wide.wide and not whole.wide
    torch.testing.assert_close(contributions(wide, 0, members, center, scale), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(wide.power, whole.power, rtol=1e-5, atol=0)
    monkeypatch.setattr(module, "SKETCH", 100)
    sketched = contributions(wide, 0, members, center, scale)
    assert float((sketched - expected).norm() / expected.norm()) < 0.2


def test_factors_of_units_are_what_least_squares_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "WIDE", 100)
    monkeypatch.setattr(module, "SKETCH", 150)
    given = flattened()
    group, own, members = read(given)
    order, width = list(range(group.size)), 5
    part = covariance(own, 0, members, True)
    (change,) = narrowed(given.model, given.groups, group, order, [width], {"3.weight": own})
    weight, difference = given.model[3].weight, change["3.weight"].unflatten(1, (12, 16))
    factors = 1 + (difference / weight.unflatten(1, (12, 16))).mean((0, 2))
    ridge = part.ridge * part.matrix.diagonal().mean() * torch.eye(width)
    solved = torch.linalg.solve(part.matrix[:width, :width] + ridge, part.cross[:width, 0])
    torch.testing.assert_close(factors[:width].double(), solved, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(factors[width:], torch.zeros(12 - width), rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", LOCAL)
def test_wide_consumers_are_ranked(name: str, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "WIDE", 100)
    given = flattened()
    with torch.no_grad():
        given.model[3].weight[:, 7 * 16 : 8 * 16] = 0
    kind: type[Method] = METHODS[name]
    rankings = kind(metric=metric).rank(given)
    for group in given.groups:
        ranking = rankings[group.name]
        assert sorted(ranking.order) == list(range(group.size))
        assert ranking.error[-1] == 0 and all(a >= b for a, b in zip(ranking.error, ranking.error[1:], strict=False))
    assert rankings[given.groups[0].name].order[-1] == 7
