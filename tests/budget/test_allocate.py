from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.budget.allocate import allocate, narrowest
from compressor.budget.costs.base import CostModel
from compressor.budget.costs.macs import Macs
from compressor.errors import InputError
from compressor.selection.base import Ranking
from compressor.structure.flow import INPUT, Flow
from compressor.structure.groups import ChannelGroup, Groups
from tests.budget.chains import chain, curve


def random_curve(rng: random.Random, size: int, convex: bool) -> Ranking:
    losses = [rng.random() ** 3 for _ in range(size)]
    return curve(sorted(losses, reverse=True) if convex else losses)


def price(rankings: Mapping[str, Ranking], widths: Mapping[str, int]) -> float:
    return sum(rankings[name].error[width] for name, width in widths.items())


def cheapest(cost: CostModel, groups: Groups, rankings: Mapping[str, Ranking], budget: float) -> float | None:
    choices = itertools.product(*(range(1, group.size + 1) for group in groups))
    named = (dict(zip(rankings, widths, strict=True)) for widths in choices)
    return min((price(rankings, widths) for widths in named if cost.total(widths) <= budget), default=None)


def test_prices_are_close_to_the_lowest_possible() -> None:
    rng, ratios = random.Random(0), []
    for trial in range(60):
        model, groups = chain([rng.randint(2, 7) for _ in range(4)], [rng.choice([1, 4, 16]) for _ in range(5)])
        rankings = {group.name: random_curve(rng, group.size, convex=trial % 2 == 0) for group in groups}
        cost, target = Macs(model, groups), rng.uniform(0.3, 0.9)
        best = cheapest(cost, groups, rankings, target * cost.dense)
        if best:
            ratios.append(price(rankings, allocate(groups, rankings, cost, target)) / best)
    assert len(ratios) > 40
    assert np.mean(np.array(ratios) < 1.0001) > 0.8
    assert np.mean(ratios) < 1.05


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 24), min_size=1, max_size=5),
    target=st.floats(0.05, 1),
    multiple_of=st.sampled_from([1, 2, 4, 8]),
    minimum=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_the_budget_holds_with_allowed_widths_or_the_target_is_refused(
    sizes: list[int], target: float, multiple_of: int, minimum: int, seed: int
) -> None:
    rng = random.Random(seed)
    model, groups = chain(sizes, [rng.choice([1, 4, 16]) for _ in range(len(sizes) + 1)])
    rankings = {group.name: random_curve(rng, group.size, convex=seed % 2 == 0) for group in groups}
    cost = Macs(model, groups)
    allowed = [[w for w in range(minimum, s) if w % multiple_of == 0] + [s] for s in sizes]
    smallest = cost.total({str(i): widths[0] for i, widths in enumerate(allowed)})
    if smallest > target * cost.dense:
        with pytest.raises(InputError):
            allocate(groups, rankings, cost, target, multiple_of=multiple_of, minimum=minimum)
        return
    widths = allocate(groups, rankings, cost, target, multiple_of=multiple_of, minimum=minimum)
    assert all(widths[str(i)] in choices for i, choices in enumerate(allowed))
    assert cost.total(widths) <= target * cost.dense
    for group in groups:
        wider = [w for w in allowed[int(group.name)] if w > widths[group.name]]
        assert all(cost.total({**widths, group.name: w}) > target * cost.dense for w in wider)


@pytest.mark.parametrize("target", [0.25, 0.5, 0.9])
def test_the_target_is_met_within_one_percent(target: float) -> None:
    rng = random.Random(1)
    model, groups = chain([32, 64, 48, 64], [64, 64, 16, 16, 1])
    rankings = {group.name: random_curve(rng, group.size, convex=True) for group in groups}
    cost = Macs(model, groups)
    assert 0.99 * target <= cost.total(allocate(groups, rankings, cost, target)) / cost.dense <= target


@pytest.mark.parametrize("seed", [61, 259, 297])
def test_no_group_could_be_wider_within_the_budget(seed: int) -> None:
    rng = random.Random(seed)
    model, groups = chain([rng.randint(2, 10) for _ in range(3)], [rng.choice([1, 4, 16]) for _ in range(4)])
    rankings = {group.name: random_curve(rng, group.size, convex=seed % 2 == 0) for group in groups}
    cost, target = Macs(model, groups), rng.uniform(0.6, 0.95)
    widths = allocate(groups, rankings, cost, target)
    wider = [{**widths, g.name: widths[g.name] + 1} for g in groups if widths[g.name] < g.size]
    assert wider and all(cost.total(other) > target * cost.dense for other in wider)


def test_a_target_of_one_keeps_everything() -> None:
    model, groups = chain([4, 6], [1, 1, 1])
    flat = {"0": curve([0.0] * 4), "1": curve([0.0] * 6)}
    assert allocate(groups, flat, Macs(model, groups), 1.0) == {"0": 4, "1": 6}


def test_units_without_a_price_go_first() -> None:
    model, groups = chain([6, 6], [1, 1, 1])
    rankings = {"0": curve([1, 1, 1, 0, 0, 0]), "1": curve([1] * 6)}
    widths = allocate(groups, rankings, Macs(model, groups), 0.68)
    assert widths == {"0": 3, "1": 6}


@pytest.mark.parametrize("target", [0.3, 0.5, 0.7])
def test_steps_of_a_group_and_multiples_combine(target: float) -> None:
    model, groups = chain([24, 24], [1, 1, 1])
    blocks = tuple(tuple(range(b, 24, 3)) for b in range(3))
    groups = Groups((ChannelGroup("0", 24, groups[0].slices, blocks), groups[1]), positions=groups.positions)
    rankings = {"0": curve([1] * 24), "1": curve([2] * 24)}
    widths = allocate(groups, rankings, Macs(model, groups), target, multiple_of=2)
    assert widths["0"] < 24 and widths["0"] % 6 == 0 and widths["1"] % 2 == 0


def test_a_group_smaller_than_the_multiple_stays_whole() -> None:
    model, groups = chain([4, 16], [1, 1, 1])
    rankings = {"0": curve([1] * 4), "1": curve([1] * 16)}
    assert allocate(groups, rankings, Macs(model, groups), 0.6, multiple_of=8) == {"0": 4, "1": 8}


def test_an_impossible_target_names_the_smallest_share() -> None:
    model, groups = chain([4, 4], [1, 1, 1])
    rankings = {"0": curve([1] * 4), "1": curve([1] * 4)}
    with pytest.raises(InputError, match=r"keep 0\.1875") as caught:
        allocate(groups, rankings, Macs(model, groups), 0.1)
    assert caught.value.where == "compress.target" and "0.1875" in str(caught.value.cure)


def test_the_share_that_the_message_names_can_be_reached() -> None:
    model, groups = chain([7, 5], [1, 3, 1])
    rankings = {"0": curve([1] * 7), "1": curve([1] * 5)}
    cost = Macs(model, groups)
    with pytest.raises(InputError) as caught:
        allocate(groups, rankings, cost, 1e-6)
    share = float(caught.value.problem.rpartition(" ")[2])
    assert allocate(groups, rankings, cost, share) == {"0": 1, "1": 1}


def test_the_result_is_the_same_every_time() -> None:
    rng = random.Random(3)
    model, groups = chain([9, 14, 11], [1, 4, 4, 1])
    rankings = {group.name: random_curve(rng, group.size, convex=False) for group in groups}
    first, second = (allocate(groups, rankings, Macs(model, groups), 0.4) for _ in range(2))
    assert first == second


class Staircase(CostModel):
    """What a device with blocks of four channels might take: a part of a block costs more than a whole one."""

    name = "staircase"

    def total(self, widths: Mapping[str, int]) -> float:
        kept = (widths.get(name, 12) for name in "012")
        return sum(-(-width // 4) + (0.5 if width % 4 else 0.0) for width in kept)


def test_a_measured_staircase_is_a_cost_model_like_any_other() -> None:
    _, groups = chain([12, 12, 12], [1] * 4)
    rankings = {name: curve([4, 3, 2, 2, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]) for name in "012"}
    widths = allocate(groups, rankings, Staircase(), 0.7)
    assert Staircase().total(widths) <= 0.7 * Staircase().dense
    assert all(width % 4 == 0 for width in widths.values())


def test_a_group_vanishes_only_where_it_can() -> None:
    model, groups = chain([4, 8], [1, 1, 1])
    rankings = {"0": curve([0.0] * 4), "1": curve([5] * 8)}
    assert allocate(groups, rankings, Macs(model, groups), 0.5)["0"] == 1
    branch = dataclasses.replace(groups[0], vanishes=True)
    groups = dataclasses.replace(groups, items=(branch, groups[1]))
    assert allocate(groups, rankings, Macs(model, groups), 0.5) == {"0": 0, "1": 8}


def rivals(groups: Groups, *sets: set[int]) -> Groups:
    """The same groups: each vanishes, but not all those of a set together."""
    every = range(1, len(groups) + 1)  # the calls that read the groups
    flow = Flow(
        weights=tuple(f"{number}.weight" for number in range(len(groups) + 1)),
        calls=(frozenset({INPUT}), *(frozenset({0}) for _ in every)),
        outputs=frozenset({frozenset({INPUT, *every}), *(frozenset(n + 1 for n in own) for own in sets)}),
    )
    items = tuple(dataclasses.replace(group, vanishes=True) for group in groups)
    return dataclasses.replace(groups, items=items, flow=flow)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(2, 12), min_size=2, max_size=5),
    sets=st.lists(st.sets(st.integers(0, 4), min_size=2, max_size=3), max_size=3),
    target=st.floats(0.01, 0.5),
    seed=st.integers(0, 1000),
)
def test_groups_never_vanish_that_may_not_do_so_together(
    sizes: list[int], sets: list[set[int]], target: float, seed: int
) -> None:
    rng = random.Random(seed)
    model, groups = chain(sizes, [rng.choice([1, 4, 16]) for _ in range(len(sizes) + 1)])
    groups = rivals(groups, *(own for own in sets if max(own) < len(sizes)))
    rankings = {group.name: random_curve(rng, group.size, convex=seed % 2 == 0) for group in groups}
    cost = Macs(model, groups)
    least = narrowest(groups, cost)
    assert groups.may_vanish([name for name, width in least.items() if not width])
    try:
        widths = allocate(groups, rankings, cost, target)
    except InputError:
        assert cost.total(least) > target * cost.dense
    else:
        assert cost.total(widths) <= target * cost.dense
        assert groups.may_vanish([name for name, width in widths.items() if not width])


def test_a_cheap_group_that_vanishes_does_not_keep_a_large_one_from_it() -> None:
    model, groups = chain([2, 32], [1, 1, 8])
    groups = rivals(groups, {0, 1})
    rankings = {"0": curve([0.0] * 2), "1": curve([1] * 32)}
    cost = Macs(model, groups)
    assert narrowest(groups, cost) == {"0": 1, "1": 0}
    assert allocate(groups, rankings, cost, cost.total({"0": 1, "1": 0}) / cost.dense) == {"0": 1, "1": 0}


def test_a_group_without_a_price_for_nothing_is_not_among_the_least_widths() -> None:
    model, groups = chain([4, 4], [1, 1, 1])
    groups = rivals(groups, {0, 1})
    unpriced = Ranking((0, 1, 2, 3), (float("inf"), 3.0, 2.0, 1.0, 0.0))
    widths = narrowest(groups, Macs(model, groups), rankings={"0": unpriced, "1": curve([1] * 4)})
    assert widths == {"0": 1, "1": 0}
