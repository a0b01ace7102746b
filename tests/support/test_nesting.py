"""Examples in any nesting: chosen from, put together, moved."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressor.support.batches import floating, joined, part_of, placed, take

ROWS = torch.arange(4.0)[:, None] + torch.zeros(2)
BOXES = [{"boxes": torch.full((number + 1, 2), float(number))} for number in range(4)]
NESTED = ({"rows": ROWS, "boxes": BOXES}, torch.zeros(7), "words")


@pytest.mark.parametrize(("index", "numbers"), [(slice(1, 3), [1, 2]), (torch.tensor([3, 0]), [3, 0])])
def test_examples_are_chosen_from_rows_and_from_lists_of_mappings(index: Any, numbers: list[int]) -> None:
    chosen, mask, words = take(NESTED, index, 4)
    assert chosen["rows"][:, 0].tolist() == numbers
    assert [len(box["boxes"]) - 1 for box in chosen["boxes"]] == numbers
    assert mask is NESTED[1] and words == "words"


def test_parts_are_put_together_as_they_were() -> None:
    parts = [take(NESTED, part, 4) for part in (slice(0, 1), slice(1, 4))]
    whole, _, words = joined([(part[0], None, part[2]) for part in parts])
    assert torch.equal(whole["rows"], ROWS) and words == "words"
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(whole["boxes"], BOXES, strict=True))


def test_a_list_of_inputs_is_no_list_of_examples() -> None:
    inputs = part_of((ROWS, [ROWS, ROWS, ROWS, ROWS]), 0, 2)
    assert [len(tensor) for tensor in inputs[1]] == [2, 2, 2, 2]


def test_all_tensors_are_moved() -> None:
    moved = placed(NESTED, "meta")
    assert moved[0]["boxes"][0]["boxes"].is_meta and moved[1].is_meta and moved[2] == "words"


def test_only_floating_point_tensors_are_outputs() -> None:
    assert [tuple(t.shape) for t in floating({"a": ROWS, "b": [torch.arange(3), torch.zeros(2)], "c": None})] == [
        (4, 2),
        (2,),
    ]
