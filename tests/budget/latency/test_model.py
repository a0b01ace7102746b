"""A latency table turned into a cost of widths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from compressor.budget.allocate import allocate
from compressor.budget.costs.products import Products
from compressor.budget.latency.model import Latency
from compressor.budget.latency.profile import fits, write_kit
from compressor.budget.latency.sampling import choose_widths
from compressor.budget.latency.segments import Segments
from compressor.budget.latency.skeleton import Skeleton
from compressor.budget.latency.staircase import Staircase, least_squares, left_out
from compressor.budget.latency.weight_cache import BOUNDLESS, Cache
from compressor.pipeline.inspection import useful_widths
from compressor.selection.base import Ranking
from compressor.structure import Groups, find_groups
from exporters.latency_table import LatencyTable
from exporters.operators import Measured, Operator
from tests.budget.latency.test_skeleton import INPUTS, Mixed, export

BLOCK = 4
SETTINGS = {"provider": "cpu", "threads": 1, "batch": 1}


def blocks(width: float) -> int:
    return -(-int(width) // BLOCK)


@pytest.fixture(scope="module")
def network() -> tuple[Groups, Skeleton]:
    model = Mixed().eval()
    groups = find_groups(model, INPUTS)
    return groups, Skeleton.learn(model, groups, export)


def made_up(network: tuple[Groups, Skeleton], held: float = float("inf")) -> LatencyTable:
    """What a device would measure that works on four channels at a time, with a little noise.

    Of the weights, `held` bytes stay in its cache.
    """
    groups, skeleton = network
    rng, widths, segments = np.random.default_rng(0), choose_widths(groups), Segments(skeleton)
    sizes = {group.name: group.size for group in groups}
    weights = Products(segments.bytes, segments.cuts, sizes)
    measured = []
    for choice in widths:
        fetched, times = 0.02 * max(0.0, 1 - held / weights.total(choice)), []
        for name, kept in zip(segments.bytes, weights.each(choice), strict=True):
            axes = [axis for slot, axis in skeleton.axes.items() if slot.owner == name]
            us = 10 * float(np.prod([blocks(axis.length(choice)) for axis in axes])) * rng.normal(1, 0.0005)
            layer = segments.items[segments.readers[name]].layer
            times.append((Operator(layer, "Conv", (), ()), us + fetched * kept))
        measured.append(Measured(sum(us for _, us in times), times))
    return LatencyTable({"cpu": "made up"}, SETTINGS, tuple(widths), tuple(measured))


@pytest.fixture(scope="module")
def table(network: tuple[Groups, Skeleton]) -> LatencyTable:
    return made_up(network)


@pytest.fixture(scope="module")
def cost(network: tuple[Groups, Skeleton], table: LatencyTable) -> Latency:
    return Latency(table, network[1], network[0])


def test_the_steps_of_the_device_are_found(cost: Latency) -> None:
    assert cost.staircase.block == BLOCK
    assert cost.error < 0.05


def test_what_the_cache_holds_is_found(network: tuple[Groups, Skeleton]) -> None:
    groups, skeleton = network
    size = Products((s := Segments(skeleton)).bytes, s.cuts, {g.name: g.size for g in groups}).dense
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compressor.budget.latency.model.CACHES", tuple(Cache(size * part / 8) for part in range(1, 8)))
        cost = Latency(made_up(network, held=size / 4), skeleton, groups)
        assert cost.cache.held == size / 4
        assert cost.error < 0.05
        test_changes_are_differences_of_totals(cost, network)
        assert sum(cost.by_layer({}).values()) == pytest.approx(cost.dense, rel=0.1)


def test_a_cache_that_holds_everything_is_none(cost: Latency) -> None:
    assert cost.cache is BOUNDLESS


def test_measured_networks_are_foretold(cost: Latency, table: LatencyTable) -> None:
    for widths, measured in zip(table.widths, table.measured, strict=True):
        assert cost.total(widths) == pytest.approx(measured.total / 1e3, rel=0.06)


def test_changes_are_differences_of_totals(cost: Latency, network: tuple[Groups, Skeleton]) -> None:
    rng = Random(0)
    for group in network[0]:
        widths = {g.name: rng.randrange(g.step, g.size + 1, g.step) for g in network[0]}
        candidates = range(0 if group.vanishes else group.step, group.size + 1, group.step)
        totals = [cost.total({**widths, group.name: w}) - cost.total(widths) for w in candidates]
        np.testing.assert_allclose(cost.changes(widths, group.name, candidates), totals, atol=1e-9)


def test_a_group_that_vanishes_takes_its_layers_with_it(cost: Latency, network: tuple[Groups, Skeleton]) -> None:
    hidden = next(g for g in network[0] if g.name == "hidden")
    full, least = cost.total({}), cost.total({"hidden": hidden.step})
    assert cost.total({"hidden": 0}) < least < full


def test_useful_widths_lie_on_the_steps(cost: Latency, network: tuple[Groups, Skeleton]) -> None:
    found = {group.name: useful_widths(cost, group) for group in network[0]}
    assert any(found.values())
    del found["join"]  # it is flattened: each of its units is a multiple of the block
    assert all(width % BLOCK == 0 for widths in found.values() for width in widths)


def test_no_allocation_is_slower_than_the_dense_network(cost: Latency, network: tuple[Groups, Skeleton]) -> None:
    groups = network[0]
    falling = {g.name: tuple(1 - w / g.size for w in range(g.size + 1)) for g in groups}
    rankings = {g.name: Ranking(tuple(range(g.size)), falling[g.name]) for g in groups}
    for share in (0.4, 0.6, 0.8, 0.95):
        assert cost.total(allocate(groups, rankings, cost, share)) <= share * cost.dense


def test_tables_come_back_from_disk(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    assert again.widths == table.widths and again.device == table.device and again.settings == table.settings
    assert again.measured[0].total == pytest.approx(table.measured[0].total, abs=0.01)


def test_tables_of_something_else_are_told(table: LatencyTable, network: tuple[Groups, Skeleton]) -> None:
    assert fits(table, SETTINGS, network[0]) is None
    assert "threads" in (fits(table, SETTINGS | {"threads": 4}, network[0]) or "")
    assert "group" in (fits(replace(table, widths=({},)), SETTINGS, network[0]) or "")


def test_a_kit_holds_all_that_its_script_needs(network: tuple[Groups, Skeleton], tmp_path: Path) -> None:
    files = write_kit(network[1], network[0], SETTINGS, tmp_path / "kit")
    assert {path.name for path in files} >= {"measure.py", "kit.json", "0000.onnx"}
    modules = [path for path in files if path.suffix == ".py"]
    beside = {f"from exporters.{path.stem} import" for path in modules if path.parent.name == "exporters"}
    lines = [line for path in modules for line in path.read_text().splitlines() if line.startswith(("import", "from"))]
    others = [line for line in lines if not line.startswith(tuple(beside))]
    assert not any(word in line for line in others for word in ("compressor", "exporters", "torch", "onnx "))


def test_features_tell_steps_and_stray_widths() -> None:
    stairs, dense = Staircase(16, 4), np.array([64.0])
    on, inside, stray, whole = (stairs.features(np.array([[w]]), dense)[0] for w in (48.0, 44.0, 43.0, 64.0))
    assert on[2] == inside[2] == 0.75 and on[1] > inside[1]
    assert not (set(np.flatnonzero(stray)) & set(np.flatnonzero(on)))  # other code runs: none of the terms is shared
    assert whole[2] == whole[3] == 1.0


def test_what_is_left_out_is_predicted_as_by_a_fit_without_it() -> None:
    rng = np.random.default_rng(0)
    features, weights = rng.random((30, 4)), rng.uniform(0.5, 1.0, 30)
    values = 5 + features @ np.array([3.0, 1.0, 0.5, 2.0]) + 0.1 * rng.standard_normal(30)
    found = left_out(features, values, weights)
    for row in range(30):
        others = np.arange(30) != row
        alone = features[row] @ least_squares(features[others], values[others], weights[others])
        assert found[row] == pytest.approx(alone, rel=1e-3)


def test_a_busy_machine_changes_neither_the_steps_nor_the_ratios(
    network: tuple[Groups, Skeleton], table: LatencyTable, cost: Latency
) -> None:
    rng = np.random.default_rng(1)
    slowed = [Measured(m.total * rng.uniform(1.0, 1.2), m.operators) for m in table.measured]
    busy = Latency(replace(table, measured=tuple(slowed)), network[1], network[0])
    half = {group.name: group.size // 2 for group in network[0]}
    assert busy.staircase.block == cost.staircase.block
    assert busy.dense / busy.total(half) == pytest.approx(cost.dense / cost.total(half), rel=0.02)
