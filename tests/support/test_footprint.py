"""What a network takes while it runs, counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.refit.footprint import footprint_of
from compressor.support.footprint import Gauge, fitting, inputs_in_a_pass

MAP = 4 * 8 * 10 * 10


def network() -> nn.Module:
    conv = nn.Conv2d(3, 8, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(800, 2)).eval()


def batch(size: int = 16) -> tuple[Tensor]:
    return (torch.randn(size, 3, 10, 10),)


def test_the_peak_is_that_of_the_operation_with_most_around_it() -> None:
    found = footprint_of(network(), batch())
    assert found.inputs == 4 * 3 * 10 * 10
    assert 2 * MAP <= found.peak < 2 * MAP + 100  # behind the convolution, while the batch norm makes its output


def test_what_is_held_behind_each_layer() -> None:
    found = footprint_of(network(), batch(), ["0.weight", "4.weight"])
    assert [call.weight for call in found.calls] == ["0.weight", "4.weight"]
    assert all(call.input is None and call.output is None for call in found.calls)
    assert found.held == (MAP, MAP + 8) and found.output == (MAP, 8)
    assert found.last_use == 0


def test_views_and_weights_count_nothing_and_what_is_gone_counts_no_more() -> None:
    x, weight = torch.ones(10), torch.ones(10)
    with Gauge([weight]) as gauge:
        y = x + weight.view(2, 5).flatten()
        z = y.view(5, 2)
        assert gauge.live == 40
        del y, z
        assert gauge.live == 0
    assert gauge.peak == 40


def test_batches_that_fit_stay_as_they_are() -> None:
    data = [batch(), batch()]
    assert fitting(network(), data) is data


def test_batches_that_do_not_fit_are_cut() -> None:
    parts = fitting(network(), [batch()], most=5 * 2.1 * MAP)
    assert [len(part[0]) for part in parts] == [4, 4, 4, 4]


def test_gradients_count() -> None:
    model = network()

    def backward(few: tuple[Tensor]) -> object:
        with torch.enable_grad():
            return torch.autograd.grad(model(*few).sum(), list(model.parameters()))

    most = 1e6
    assert inputs_in_a_pass(model, batch(), most, backward) < inputs_in_a_pass(model, batch(), most) < most


@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_batches_can_be_counted(size: int) -> None:
    assert footprint_of(network(), batch(size)).peak >= 2 * MAP
