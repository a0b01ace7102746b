"""What each of the simple methods looks at."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from compressor.errors import InputError
from compressor.selection.base import Calibration, ranking_from_scores
from compressor.selection.methods.bn_scale import BatchNormScale
from compressor.selection.methods.magnitude import Magnitude
from compressor.selection.methods.random import RandomOrder
from compressor.selection.methods.taylor import Taylor
from compressor.selection.units import sum_per_unit
from compressor.structure.groups import ChannelGroup, Groups, Slice
from tests.budget.chains import single

SIZE = 6


def network() -> tuple[nn.Module, Groups]:
    """conv - batch norm - relu - conv - mean, and the group between the two convolutions, by hand."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, SIZE, 3, padding=1), nn.BatchNorm2d(SIZE), nn.ReLU(), nn.Conv2d(SIZE, 4, 3), nn.Flatten()
    ).eval()
    parts = (
        single("0.weight", 0, "producer", SIZE),
        single("0.bias", 0, "producer", SIZE),
        *(single(f"1.{name}", 0, "carrier", SIZE) for name in ("weight", "bias", "running_mean", "running_var")),
        single("3.weight", 1, "consumer", SIZE),
    )
    return model, Groups((ChannelGroup("0", SIZE, parts),))


def calibration(model: nn.Module, groups: Groups, batches: int = 2, seed: int = 0) -> Calibration:
    torch.manual_seed(1)
    images = [(torch.randn(4, 3, 3, 3),) for _ in range(batches)]
    return Calibration(model, groups, images, [torch.randint(4, (4,)) for _ in images], seed=seed)


def test_random_follows_the_seed() -> None:
    model, groups = network()
    orders = {RandomOrder().rank(calibration(model, groups, seed=seed))["0"].order for seed in range(5)}
    assert len(orders) > 1


def test_magnitude_keeps_the_largest_filters() -> None:
    model, groups = network()
    norms = model[0].weight.data.flatten(1).norm(dim=1)
    model[0].weight.data *= (torch.tensor([3.0, 9, 0, 6, 1, 12]) / norms).view(-1, 1, 1, 1)
    ranking = Magnitude().rank(calibration(model, groups))["0"]
    assert ranking.order == (5, 1, 3, 0, 4, 2)
    assert ranking.error[5] == pytest.approx(0, abs=1e-9)


def test_magnitude_gives_every_producer_the_same_say() -> None:
    model = nn.ModuleList([nn.Linear(1, 2, bias=False), nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)])
    model[0].weight.data[:], model[1].weight.data[:] = torch.tensor([[300.0], [400]]), torch.tensor([[4.0], [1]])
    parts = (*(single(f"{i}.weight", 0, "producer", 2) for i in (0, 1)), single("2.weight", 1, "consumer", 2))
    ranking = Magnitude().rank(Calibration(model, Groups((ChannelGroup("0", 2, parts),)), []))["0"]
    assert ranking.order == (0, 1)


def test_batch_norm_scale_ignores_the_sign() -> None:
    model, groups = network()
    model[1].weight.data = torch.tensor([0.1, -5, 2, 0, -1, 3])
    assert BatchNormScale().rank(calibration(model, groups))["0"].order == (1, 5, 2, 4, 0, 3)


def test_batch_norm_scale_refuses_a_group_without_batch_norm() -> None:
    model, groups = network()
    bare = ChannelGroup("0", SIZE, tuple(part for part in groups[0].slices if part.role != "carrier"))
    with pytest.raises(InputError, match="'0'") as caught:
        BatchNormScale().rank(calibration(model, Groups((bare,))))
    assert "compress.keep" in str(caught.value.cure)


def test_taylor_is_the_derivative_of_the_loss_by_a_gate_at_the_consumer() -> None:
    model, groups = network()
    given = calibration(model, groups, batches=3)
    expected = torch.zeros(SIZE)
    for (images,), labels in zip(given.images, given.labels or [], strict=True):
        gate = torch.ones(SIZE, requires_grad=True)
        loss = cross_entropy(model[3:](model[:3](images) * gate.view(-1, 1, 1)), labels)
        expected += torch.autograd.grad(loss, gate)[0].abs()
    wanted, found = ranking_from_scores(groups[0], expected), Taylor().rank(given)["0"]
    assert found.order == wanted.order
    assert found.error == pytest.approx(wanted.error, rel=1e-4)


def test_taylor_sums_gradients_over_parts_of_a_batch_that_memory_is_too_small_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, groups = network()
    given = calibration(model, groups)
    whole = Taylor().rank(given)["0"]
    asked = []

    def few(*args: object, **options: object) -> int:
        asked.append(args)
        return 3

    monkeypatch.setattr("compressor.selection.methods.taylor.inputs_in_a_pass", few)
    parts = Taylor().rank(given)["0"]
    assert asked and parts.order == whole.order
    assert parts.error == pytest.approx(whole.error, rel=1e-4)


def test_taylor_adds_the_effects_on_all_consumers_before_it_takes_the_absolute_value() -> None:
    class Cancelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.make, self.plus, self.minus = nn.Linear(3, 2), nn.Linear(2, 4), nn.Linear(2, 4)
            self.minus.weight.data[:, 0] = -self.plus.weight.data[:, 0]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.plus(self.make(x)) + self.minus(self.make(x))

    readers = (single("plus.weight", 1, "consumer", 2), single("minus.weight", 1, "consumer", 2))
    group = ChannelGroup("make", 2, (single("make.weight", 0, "producer", 2), *readers))
    given = Calibration(Cancelling().eval(), Groups((group,)), [(torch.randn(5, 3),)], [torch.randint(4, (5,))])
    ranking = Taylor().rank(given)["make"]
    assert ranking.order == (1, 0)
    assert ranking.error[1] == pytest.approx(0, abs=1e-5)


def test_taylor_without_labels_says_what_to_do() -> None:
    model, groups = network()
    given = calibration(model, groups)
    given.labels = None
    with pytest.raises(InputError, match="labels") as caught:
        Taylor().rank(given)
    assert caught.value.cure


@pytest.mark.parametrize("method", [Magnitude, BatchNormScale, Taylor])
def test_a_dead_unit_goes_first_and_costs_nothing(method: type) -> None:
    model, groups = network()
    for tensor in (model[0].weight, model[0].bias, model[1].weight, model[1].bias):
        tensor.data[2] = 0
    ranking = method().rank(calibration(model, groups))["0"]
    assert ranking.order[-1] == 2
    assert ranking.error[SIZE - 1] == pytest.approx(0, abs=1e-12)


def test_prices_are_the_logarithm_of_the_kept_share_for_every_consumer() -> None:
    parts = (single("a.weight", 1, "consumer", 3), single("b.weight", 1, "consumer", 3))
    error = ranking_from_scores(ChannelGroup("g", 3, parts), torch.tensor([2.0, 5, 1])).error
    assert error == pytest.approx([2 * math.log(6), 2 * math.log(8 / 5), 2 * math.log(8 / 7), 0])


def test_units_that_are_all_worthless_have_no_price() -> None:
    assert ranking_from_scores(ChannelGroup("g", 2, ()), torch.zeros(2)).error == (0, 0, 0)


def test_sums_follow_units_of_several_coordinates() -> None:
    part = Slice("w", 1, "consumer", ((0, 3), (1,), (2, 4)))
    assert sum_per_unit(torch.tensor([[1.0, 2, 3, 4, 5], [10, 20, 30, 40, 50]]), part).tolist() == [55, 22, 88]


def test_inputs_of_a_grouped_convolution_are_counted_over_all_its_groups() -> None:
    values = torch.arange(4 * 2 * 3.0).view(4, 2, 3)  # 2 groups of 2 outputs and 2 inputs
    part = single("w", 1, "consumer", 4, conv_groups=2)
    expected = [values[:2, 0].sum(), values[:2, 1].sum(), values[2:, 0].sum(), values[2:, 1].sum()]
    assert sum_per_unit(values, part).tolist() == [float(value) for value in expected]
