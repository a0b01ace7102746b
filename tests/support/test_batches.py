"""Batches that are cut: the same inputs in the same order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressor.support.batches import cut, first, part_of, sizes_of


def batches(*sizes: int) -> list[tuple[Tensor]]:
    return [(torch.arange(size) + 100 * number,) for number, size in enumerate(sizes)]


def values(parts: object) -> list[int]:
    assert hasattr(parts, "__iter__")
    return [int(value) for (part,) in parts for value in part]


@pytest.mark.parametrize("most", [0, 1, 2, 3, 5, 8, 100])
def test_parts_are_even_and_hold_every_input_once(most: int) -> None:
    data = batches(8, 7, 2)
    parts = cut(data, most)
    assert values(parts) == values(data)
    assert list(sizes_of(parts)) == [len(part) for (part,) in parts]
    assert all(2 <= size <= max(3, most) for size in sizes_of(parts))


def test_a_single_input_stays_one() -> None:
    assert list(sizes_of(cut(batches(1), 5))) == [1]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 17, 30])
def test_the_first_inputs(count: int) -> None:
    data = batches(8, 7, 2)
    assert values(first(data, count)) == values(data)[:count]


def test_parts_can_be_asked_for_from_the_end_and_in_slices() -> None:
    parts = cut(batches(8), 4)
    assert values([parts[-1]]) == [4, 5, 6, 7]
    assert values(parts[:1]) == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        parts[2]


def test_what_is_shared_by_all_inputs_goes_into_every_part() -> None:
    batch = ({"x": torch.arange(4), "scale": torch.tensor(2.0)}, torch.ones(9), "mode")
    (named, mask, mode) = part_of(batch, 1, 3)
    assert named["x"].tolist() == [1, 2] and float(named["scale"]) == 2
    assert len(mask) == 9 and mode == "mode"
