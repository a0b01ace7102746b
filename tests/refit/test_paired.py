"""Two networks side by side: nothing changes by watching, and no thread outlives the walk."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from torch import Tensor, nn

from compressor.refit.paired import FEWEST, in_step
from compressor.structure.tracing.ops import WeightCall
from compressor.support.batches import Batches

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


class Generated(Batches):
    """Batches that nobody keeps, each made when it is read."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.reads: list[int] = []

    def read(self, number: int) -> tuple[Tensor]:
        self.reads.append(number)
        return (torch.randn(self.sizes[number], 3, 16, 16, generator=torch.Generator().manual_seed(number)),)


def tapering() -> nn.Module:
    """A network whose maps become ever smaller."""
    torch.manual_seed(0)
    sizes = [(3, 8, 1), (8, 16, 2), (16, 16, 2), (16, 16, 2)]
    layers = [layer for i, o, s in sizes for layer in (nn.Conv2d(i, o, 3, stride=s, padding=1), nn.ReLU())]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 3)).eval()


def bytes_alive() -> int:
    """Of all dense tensors that Python knows; other tests may have left an exporter's fakes and sparse ones."""
    found = [o for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter) and o.layout == torch.strided]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}
    return sum(storages.values())


TAPERING = {f"{number}.weight" for number in (0, 2, 4, 6, 9)}
ROOM = 2**19


def test_what_waits_never_takes_more_than_is_allowed() -> None:
    dense, other, data = tapering(), tapering(), Generated([10] * 12)
    gc.collect()
    before = bytes_alive()
    begun = []
    for calls in in_step(dense, other, data, TAPERING, most=ROOM):
        assert bytes_alive() - before <= ROOM
        begun.append(calls.images)
        assert calls.images == sum(len(left.output) for left, _ in calls if left.output is not None)
    assert begun == sorted(begun)
    assert FEWEST <= begun[0] < 30 and begun[-1] == 120


def test_without_a_limit_it_would_take_more() -> None:
    gc.collect()
    before = bytes_alive()
    walk = in_step(tapering(), tapering(), Generated([10] * 12), TAPERING)
    assert [len(calls) for calls in [next(walk)]] == [12]
    assert bytes_alive() - before > 2 * ROOM


def test_images_that_begin_later_go_the_same_way_and_are_read_once() -> None:
    dense, data = tapering(), Generated([10] * 12)
    expected = [dense(*batch) for batch in Generated([10] * 12)]
    *_, last = in_step(dense, tapering(), data, TAPERING, most=ROOM)
    outputs = [left.output for left, _ in last if left.output is not None]
    assert torch.allclose(torch.cat(outputs), torch.cat(expected), atol=1e-6)
    assert sorted(set(data.reads)) == list(range(12))


def test_images_that_begin_later_see_what_was_changed_before() -> None:
    other = tapering()
    for number, calls in enumerate(in_step(tapering(), other, Generated([10] * 12), TAPERING, most=ROOM)):
        if number == 0:
            with torch.no_grad():
                other.get_parameter("0.weight").zero_()
                other.get_parameter("0.bias").zero_()
        if number == 1:
            assert not any(right.input.any() for _, right in calls if right.input is not None)


class Remembering(nn.Module):
    """Reads its input again in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tapering()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + x.mean((1, 2, 3))[:, None]
        return out


def test_an_input_that_is_read_again_is_kept() -> None:
    walk = in_step(Remembering(), Remembering(), Generated([10] * 4), {"body." + name for name in TAPERING})
    assert len(list(walk)) == len(TAPERING)


def test_images_of_the_caller_are_left_alone() -> None:
    data = [(torch.randn(4, 3, 16, 16),) for _ in range(3)]
    copies = [batch[0].clone() for batch in data]
    list(in_step(tapering(), tapering(), data, TAPERING))
    assert all(torch.equal(batch[0], copy) for batch, copy in zip(data, copies, strict=True))


def test_few_images_wait_where_none_would_be_allowed() -> None:
    begun = [calls.images for calls in in_step(tapering(), tapering(), Generated([10] * 4), TAPERING, most=1)]
    assert begun == [FEWEST] * len(TAPERING)
