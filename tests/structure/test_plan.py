"""Plans: rounding, what is refused, and JSON that can be read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import InputError
from compressor.structure import ChannelGroup, Plan, Slice
from tests.structure.examined import examined, random_plan
from tests.structure.networks import CASES


def group(size: int, *, blocks: tuple[tuple[int, ...], ...] = (), name: str = "conv") -> ChannelGroup:
    units = tuple((u,) for u in range(size))
    cuts = Slice(f"{name}.weight", 0, "producer", units), Slice("next.weight", 1, "consumer", units)
    return ChannelGroup(name, size, cuts, blocks)


HALVES = ((0, 1, 2, 3), (4, 5, 6, 7))


def width(size: int, keep: float, multiple_of: int = 1, blocks: tuple[tuple[int, ...], ...] = ()) -> int:
    return len(Plan.uniform([group(size, blocks=blocks)], keep, multiple_of).kept["conv"])


@pytest.mark.parametrize(
    ("size", "keep", "multiple_of", "expected"),
    [
        (10, 0.5, 1, 5),
        (10, 0.2, 1, 2),
        (10, 0.1, 1, 1),
        (10, 0.01, 1, 1),
        (10, 0.8, 1, 8),
        (10, 1.0, 1, 10),
        (16, 0.25, 8, 8),
        (16, 0.01, 8, 8),
        (64, 0.5, 16, 32),
        (64, 0.55, 16, 32),
        (64, 0.65, 16, 48),
        (12, 0.9, 8, 8),
        (12, 1.0, 8, 12),
        (6, 0.5, 8, 6),
    ],
)
def test_uniform_rounds_to_the_nearest_multiple(size: int, keep: float, multiple_of: int, expected: int) -> None:
    assert width(size, keep, multiple_of) == expected


def test_nothing_is_pruned_when_everything_is_kept() -> None:
    for size in range(1, 40):
        assert width(size, 1.0) == size


def test_uniform_keeps_equally_many_of_each_block() -> None:
    kept = Plan.uniform([group(8, blocks=HALVES)], 0.5).kept["conv"]
    assert kept == (0, 1, 4, 5)


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_uniform_respects_blocks_and_multiples(keep: float) -> None:
    assert width(8, keep, 4, HALVES) % 4 == 0


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused(keep: float) -> None:
    with pytest.raises(InputError, match="keep"):
        Plan.uniform([group(8)], keep)


@pytest.mark.parametrize(
    ("kept", "problem"), [((8,), "does not exist"), ((-1,), "does not exist"), ((), "at least one")]
)
def test_units_that_do_not_exist_are_refused(kept: tuple[int, ...], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Plan.of([group(8)], {"conv": kept})


def test_uneven_blocks_are_refused() -> None:
    with pytest.raises(InputError, match="equally many"):
        Plan.of([group(8, blocks=HALVES)], {"conv": (0, 1, 4)})


def test_units_are_sorted_and_counted_once() -> None:
    assert Plan.of([group(8)], {"conv": [5, 2, 5]}).kept == {"conv": (2, 5)}


def test_a_group_that_is_not_named_stays_whole() -> None:
    assert Plan.of([group(8)], {}).groups[0].dropped == ()


def test_without_leaves_groups_whole() -> None:
    plan = Plan.uniform([group(8), group(4, name="other")], 0.5)
    assert plan.without(["conv"]).kept == {"other": (0, 1)}


def test_balanced_orders_take_turns_and_keep_the_ranking() -> None:
    order = group(8, blocks=HALVES).balanced([7, 6, 5, 0, 4, 3, 2, 1])
    assert set(order) == set(range(8))
    assert [u for u in order if u < 4] == [0, 3, 2, 1]
    assert [u for u in order if u >= 4] == [7, 6, 5, 4]
    assert all(sum(u < 4 for u in order[: 2 * k]) == k for k in range(5))


@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_read_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    plan = random_plan(examined(name).groups, 2)
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded.kept == plan.kept
    assert [p.group.slices for p in loaded.groups] == [p.group.slices for p in plan.groups]
    assert loaded.to_json() == plan.to_json()
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def changed(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(json.loads(Plan.uniform([group(8)], 0.5).to_json()) | changes))
    return path


def test_a_plan_of_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="schema 99"):
        Plan.load(changed(tmp_path, schema=99))


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="surprise"):
        Plan.load(changed(tmp_path, surprise=1))


def test_missing_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="groups"):
        Plan.load(changed(tmp_path, groups=[{}]))


def test_units_without_coordinates_are_refused(tmp_path: Path) -> None:
    plan = json.loads(Plan.uniform([group(8)], 0.5).to_json())
    plan["groups"][0]["slices"][0]["coordinates"] = [[0], [1]]
    with pytest.raises(InputError, match="2 units"):
        Plan.load(changed(tmp_path, groups=plan["groups"]))


def test_kept_units_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    plan = json.loads(Plan.uniform([group(8)], 0.5).to_json())
    plan["groups"][0]["kept"] = [0, 8]
    with pytest.raises(InputError, match="does not exist"):
        Plan.load(changed(tmp_path, groups=plan["groups"]))


def test_more_groups_of_a_convolution_than_memory_holds_are_refused(tmp_path: Path) -> None:
    plan = json.loads(Plan.uniform([group(8)], 0.5).to_json())
    plan["groups"][0]["slices"][0]["conv_groups"] = 10**30
    with pytest.raises(InputError, match="conv_groups"):
        Plan.load(changed(tmp_path, groups=plan["groups"]))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\x80"])
def test_what_is_no_plan_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="plan.json"):
        Plan.load(path)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.json"):
        Plan.load(tmp_path / "nowhere.json")
