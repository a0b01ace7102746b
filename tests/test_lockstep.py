"""Two networks side by side: nothing changes by watching, and no thread outlives the walk."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from compressor.lockstep import in_step
from compressor.structure.watch import WeightCall

Calls = list[tuple[WeightCall, WeightCall]]


def network() -> nn.Module:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3)
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 2)).eval()


def batches(count: int = 3) -> list[tuple[Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(2, 3, 6, 6),) for _ in range(count)]


WEIGHTS = {"0.weight", "4.weight", "5.weight"}


def test_it_stops_at_every_weight_in_the_order_of_the_data() -> None:
    stops = [[(a.weight, b.weight) for a, b in calls] for calls in in_step(network(), network(), batches(), WEIGHTS)]
    assert stops == [[(name, name)] * 3 for name in ("0.weight", "4.weight", "5.weight")]


def test_it_stops_only_where_it_is_told_to() -> None:
    assert [calls[0][0].weight for calls in in_step(network(), network(), batches(), {"4.weight"})] == ["4.weight"]
    assert not list(in_step(network(), network(), batches(), set()))


def test_a_walk_is_a_plain_forward_pass_when_nothing_is_changed() -> None:
    model, data = network(), batches()
    with torch.no_grad():
        expected = [model(*batch) for batch in data]
    *_, last = in_step(model, network(), data, WEIGHTS)
    for (left, right), outputs in zip(last, expected, strict=True):
        assert left.output is not None and left.input is not None and right.input is not None
        assert torch.equal(left.output, outputs) and torch.equal(left.input, right.input)


def test_the_other_network_has_not_begun_the_operation_and_goes_on_with_what_its_weight_is_by_then() -> None:
    other = network()
    for calls in in_step(network(), other, batches(), WEIGHTS):
        assert all(left.output is not None and right.output is None for left, right in calls)
        if calls[0][1].weight == "4.weight":
            with torch.no_grad():
                other.get_parameter("4.weight").zero_()
    bias = network().get_parameter("4.bias").detach()
    for left, right in calls:
        assert not torch.allclose(left.input, bias.expand(2, 5))
        assert torch.allclose(right.input, bias.expand(2, 5))


def test_modes_and_gradients_are_restored() -> None:
    dense, other = network(), network().train()
    for _ in in_step(dense, other, batches(), WEIGHTS):
        assert not other.training
    assert other.training and not dense.training
    assert torch.is_grad_enabled()
    assert all(p.grad is None and p.requires_grad for p in other.parameters())


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 100:
            raise ArithmeticError("too large")
        x = self.body(x)
        if len(x) == 1:
            raise ArithmeticError("at the end")
        return x


@pytest.mark.parametrize(
    ("bad", "problem"), [(torch.ones(2, 3, 6, 6), "too large"), (torch.zeros(1, 3, 6, 6), "at the end")]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_error_of_the_model_reaches_the_caller_and_leaves_no_thread(bad: Tensor, problem: str, place: int) -> None:
    before = threading.active_count()
    data = batches()
    data[place] = (bad,)
    with pytest.raises(ArithmeticError, match=problem):
        list(in_step(Failing(), Failing(), data, {"body." + name for name in WEIGHTS}))
    assert threading.active_count() == before


def test_an_error_of_the_caller_leaves_no_thread() -> None:
    before = threading.active_count()
    walk = in_step(network(), network(), batches(), WEIGHTS)
    next(walk)
    with pytest.raises(KeyError):
        walk.throw(KeyError("stop"))
    assert threading.active_count() == before


def test_leaving_early_leaves_no_thread() -> None:
    before = threading.active_count()
    walk = in_step(network(), network(), batches(), WEIGHTS)
    next(walk)
    walk.close()
    assert threading.active_count() == before


def test_a_finished_walk_leaves_no_thread() -> None:
    before = threading.active_count()
    list(in_step(network(), network(), batches(5), WEIGHTS))
    assert threading.active_count() == before
