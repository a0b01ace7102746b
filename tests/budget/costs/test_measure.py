from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from compressor.budget.costs.measure import measure_cost
from tests.networks import INPUT, build


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [("resnet50", 4.09e9, 25_557_032), ("mobilenet_v2", 0.30e9, 3_504_872), ("resnext50_32x4d", 4.23e9, 25_028_904)],
)
def test_counts_are_the_published_ones(name: str, macs: float, params: int) -> None:
    cost = measure_cost(torchvision.models.get_model(name), torch.zeros(1, 3, 224, 224))
    assert cost.macs == pytest.approx(macs, abs=0.005e9)
    assert cost.params == params


def test_attention_is_counted_in_evaluation_mode() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    tokens, projections, scores = 5, 8 * (3 * 8 + 8 + 2 * 16), 2 * 5 * 8
    assert measure_cost(layer, torch.zeros(1, tokens, 8)).macs == tokens * (projections + scores)


def test_macs_are_those_of_one_input() -> None:
    model = build("plain")
    assert measure_cost(model, torch.zeros(3, *INPUT)) == measure_cost(model, torch.zeros(1, *INPUT))


def test_bytes_are_those_of_parameters_and_buffers() -> None:
    batch_norm = nn.BatchNorm1d(6)
    assert measure_cost(batch_norm, torch.zeros(1, 6)).bytes == 4 * 6 * 4 + 8


def test_the_model_is_left_as_it_was() -> None:
    model = build("plain").train()
    model[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_cost(model, torch.randn(2, *INPUT))
    assert model.training and model[1][1].training and not model[0][1].training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_several_inputs_are_passed_on() -> None:
    assert measure_cost(nn.Bilinear(2, 3, 4), (torch.zeros(1, 2), torch.zeros(1, 3))).params == 28


class Tokens(nn.Module):
    """Hands a view of a parameter to a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.layer = nn.Parameter(torch.zeros(1, 3)), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layer(self.token.expand(len(x), -1))


def test_a_view_of_a_parameter_may_be_passed_to_a_layer() -> None:
    model = Tokens()
    assert measure_cost(model, torch.zeros(1, 2)).macs == 6
    assert model.token.requires_grad
