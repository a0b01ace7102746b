"""A stored latency table and stored price curves of ResNet-20: what quality at 2.0x rests on, without a measurement."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import pytest
import torch

from compressor.budget.allocate import allocate
from compressor.budget.latency.model import Latency
from compressor.budget.latency.skeleton import Skeleton
from compressor.errors import InputError
from compressor.selection.base import Ranking
from compressor.structure import Groups, find_groups
from exporters.latency_table import LatencyTable

STORED = Path(__file__).with_name("resnet20")
SAMPLE = Path(__file__).parents[3] / "samples" / "cifar10-resnet" / "model.py"


@pytest.fixture(scope="module")
def groups() -> Groups:
    return find_groups(run_path(str(SAMPLE))["resnet20"]().eval(), torch.randn(2, 3, 32, 32))


@pytest.fixture(scope="module")
def cost(groups: Groups) -> Latency:
    return Latency(LatencyTable.load(STORED / "table.json"), Skeleton.load(STORED), groups)


@pytest.fixture(scope="module")
def rankings() -> dict[str, Ranking]:
    stored = json.loads((STORED / "rankings.json").read_text())
    return {name: Ranking(tuple(r["order"]), tuple(r["error"])) for name, r in stored.items()}


def test_few_networks_are_enough_for_a_good_table(cost: Latency) -> None:
    assert len(cost.table.widths) <= 48
    assert cost.error < 0.03
    assert (cost.staircase.block, cost.staircase.align) == (8, 4)


@pytest.mark.parametrize(("target", "price"), [(1.5, 1.428), (2.0, 3.037), (3.0, 6.500)])
def test_the_price_of_a_speed_up_has_not_risen(
    target: float, price: float, groups: Groups, cost: Latency, rankings: dict[str, Ranking]
) -> None:
    widths = allocate(groups, rankings, cost, 1 / target, multiple_of=4)
    assert cost.total(widths) <= cost.dense / target
    assert sum(rankings[name].error[width] for name, width in widths.items()) <= 1.01 * price


def test_three_times_as_fast_is_out_of_reach_where_no_block_vanishes(
    groups: Groups, cost: Latency, rankings: dict[str, Ranking]
) -> None:
    widths = allocate(groups, rankings, cost, 1 / 3, multiple_of=4)
    assert sum(width == 0 for width in widths.values()) >= 3
    lasting = replace(groups, items=tuple(replace(group, vanishes=False) for group in groups))
    with pytest.raises(InputError, match="smallest widths"):
        allocate(lasting, rankings, cost, 1 / 3, multiple_of=4)
