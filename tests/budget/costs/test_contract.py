from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from compressor.budget.costs.base import CostModel, Widths
from compressor.budget.costs.macs import Macs
from compressor.budget.costs.measure import measure_cost
from compressor.budget.costs.params import Params
from compressor.budget.costs.size import Size
from compressor.budget.costs.tensor_cost import ProductCost
from compressor.structure import Groups, Plan, find_groups, shrink
from compressor.structure.groups import ChannelGroup, Slice
from compressor.support.plugins import discover
from exporters.onnx import export_onnx
from tests.budget.chains import chain, single
from tests.networks import INPUT, NETWORKS, build

MODELS = discover("compressor.budget.costs", ProductCost)


def random_widths(groups: Groups, seed: int = 0) -> dict[str, int]:
    rng = random.Random(seed)
    return {g.name: g.step * rng.randint(1, g.size // g.step) for g in groups}


def shrunk(model: nn.Module, groups: Groups, widths: dict[str, int]) -> nn.Module:
    return shrink(model, Plan.of(groups, {g.name: g.balanced(range(g.size))[: widths[g.name]] for g in groups}))


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Groups]:
    model = build(request.param)
    return model, find_groups(model, torch.zeros(1, *INPUT))


def test_the_models_are_found_by_name() -> None:
    assert set(MODELS) >= {"macs", "params", "size"}


@pytest.mark.parametrize("seed", range(3))
def test_predicted_macs_and_params_are_those_of_the_shrunk_network(
    network: tuple[nn.Module, Groups], seed: int
) -> None:
    model, groups = network
    widths = random_widths(groups, seed)
    built = measure_cost(shrunk(model, groups, widths), torch.zeros(1, *INPUT))
    assert Macs(model, groups).total(widths) == built.macs
    assert Params(model, groups).total(widths) == built.params


def test_the_dense_cost_is_that_of_the_network(network: tuple[nn.Module, Groups]) -> None:
    model, groups = network
    measured = measure_cost(model, torch.zeros(1, *INPUT))
    assert (Macs(model, groups).dense, Params(model, groups).dense) == (measured.macs, measured.params)


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_size_is_that_of_the_weights_in_the_onnx_file(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    groups = find_groups(model, torch.zeros(1, *INPUT))
    widths = random_widths(groups)
    path = export_onnx(shrunk(model, groups, widths), torch.zeros(1, *INPUT), tmp_path / "small.onnx")
    weights = [w for w in onnx.load(path).graph.initializer if w.data_type == onnx.TensorProto.FLOAT]
    assert Size(model, groups).total(widths) == 4 * sum(int(np.prod(w.dims)) for w in weights)


@pytest.mark.parametrize("name", MODELS)
def test_a_change_is_the_difference_of_two_totals(name: str, network: tuple[nn.Module, Groups]) -> None:
    model, groups = network
    cost, widths = MODELS[name](model, groups), random_widths(groups)
    for group in groups:
        candidates = range(group.size + 1)
        expected = [cost.total({**widths, group.name: w}) - cost.total(widths) for w in candidates]
        np.testing.assert_allclose(cost.changes(widths, group.name, candidates), expected, atol=1e-6)
        assert cost.change(widths, group.name, 1) == pytest.approx(expected[1])


def test_a_group_that_is_not_named_keeps_all_its_units() -> None:
    cost = Macs(*chain([4, 6], [1, 1, 1]))
    assert cost.total({"0": 2}) == cost.total({"0": 2, "1": 6}) == 3 * 2 + 2 * 6 + 6 * 5


def test_a_tensor_with_one_group_on_both_axes_shrinks_on_both() -> None:
    layer = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False))
    both = (single("0.weight", 0, "producer", 4), single("0.weight", 1, "consumer", 4))
    cost = Params(layer, Groups((ChannelGroup("0", 4, both),)))
    assert [cost.total({"0": width}) for width in range(5)] == [0, 1, 4, 9, 16]
    assert cost.change({"0": 3}, "0", 1) == 1 - 9


def test_an_axis_that_a_group_owns_twice_loses_both_parts() -> None:
    parts = tuple(Slice("0.weight", 0, "producer", tuple((u + start,) for u in range(4))) for start in (0, 4))
    cost = Params(nn.Sequential(nn.Linear(3, 9, bias=False)), Groups((ChannelGroup("0", 4, parts),)))
    assert [cost.total({"0": width}) for width in range(5)] == [3, 9, 15, 21, 27]


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(3, 3, bias=False)
    assert Params(nn.Sequential(layer, layer), Groups(())).dense == 9


def test_a_batch_norm_that_is_not_folded_keeps_its_four_tensors() -> None:
    assert Size(nn.Sequential(nn.BatchNorm2d(3)), Groups(())).dense == 4 * 3 * 4


def test_a_folded_batch_norm_leaves_one_bias() -> None:
    for bias in (True, False):
        model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=bias), nn.BatchNorm2d(3))
        assert Size(model, Groups((), norms={"0": "1"})).dense == 4 * (2 * 3 + 3)


def scalars(widths: dict[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(float(width), dtype=torch.float64) for name, width in widths.items()}


@pytest.mark.parametrize("name", MODELS)
def test_without_chance_the_expected_cost_is_the_cost(name: str, network: tuple[nn.Module, Groups]) -> None:
    model, groups = network
    cost, widths = MODELS[name](model, groups), random_widths(groups)
    sizes = {group.name: group.size for group in groups}
    still = scalars(dict.fromkeys(widths, 0))
    assert float(cost.expected(scalars(widths), still, sizes)) == pytest.approx(cost.total(widths))
    assert float(cost.expected(scalars(sizes), still, sizes)) == pytest.approx(cost.dense)


@pytest.mark.parametrize("name", MODELS)
def test_the_expected_cost_rises_with_every_width(name: str, network: tuple[nn.Module, Groups]) -> None:
    model, groups = network
    widths = {name: (width - 0.5).requires_grad_() for name, width in scalars(random_widths(groups)).items()}
    MODELS[name](model, groups).expected(widths, scalars(dict.fromkeys(widths, 0)), {}).backward()
    assert all(width.grad is not None and width.grad > 0 for width in widths.values())


def test_a_group_on_both_axes_adds_its_variance() -> None:
    layer = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False))
    both = (single("0.weight", 0, "producer", 4), single("0.weight", 1, "consumer", 4))
    cost = Params(layer, Groups((ChannelGroup("0", 4, both),)))
    p = torch.tensor([0.9, 0.5, 0.2, 1.0], dtype=torch.float64)
    expected = cost.expected({"0": p.sum()}, {"0": (p * (1 - p)).sum()}, {"0": 4})
    exact = p[:, None] * p + torch.diag(p - p * p)  # E[z_i z_j]: p_i p_j, and p_i on the diagonal
    assert float(expected) == pytest.approx(float(exact.sum()))


def test_the_slope_of_a_staircase_is_taken_over_its_steps() -> None:
    class Stairs(CostModel):
        name = "stairs"

        def total(self, widths: Widths) -> float:
            return 10.0 * -(-widths.get("a", 12) // 8) + widths.get("b", 4)

    width = torch.tensor(3.25, requires_grad=True)
    cost = Stairs().expected({"a": width, "b": torch.tensor(3.5)}, {}, {"a": 12, "b": 4})
    (slope,) = torch.autograd.grad(cost, width)
    assert float(slope) == pytest.approx(10 / 8)  # from 0 at no units to 10 at 8
    assert float(cost.detach()) == pytest.approx(3.25 * 10 / 8 + 3.5)


def test_widths_that_leave_the_fast_path_do_not_make_the_expected_cost_rise() -> None:
    class Aligned(CostModel):
        name = "aligned"

        def total(self, widths: Widths) -> float:
            width = widths.get("a", 64)
            return width * (1.0 if width % 8 == 0 else 1.6)

    widths = torch.linspace(64, 0, 200)
    costs = [float(Aligned().expected({"a": width}, {}, {"a": 64})) for width in widths]
    assert costs == pytest.approx(widths.tolist())
