"""Batches of inputs that are read, or cut into smaller ones, at the moment they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeVar, overload

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

T = TypeVar("T")

Batch = tuple[Any, ...]


class Batches(Sequence[Batch]):
    """A sequence of batches whose sizes are known before any of them is read.

    Attributes:
        sizes: Number of inputs in each batch.
    """

    sizes: Sequence[int]

    @abstractmethod
    def read(self, number: int) -> Batch:
        """The batch of that number, 0 to `len - 1`."""

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> Batch: ...

    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...

    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        if isinstance(index, slice):
            return [self.read(number) for number in range(len(self))[index]]
        return self.read(range(len(self))[index])


class Parts(Batches):
    """Parts of batches.

    Args:
        batches: What is cut. Tensors that have as many inputs on their first axis as the first one has are cut; others,
            such as a mask for all, go into every part.
        places: For each part the number of a batch, the first input of it, and the one behind the last.
    """

    def __init__(self, batches: Sequence[Batch], places: Sequence[tuple[int, int, int]]) -> None:
        self._batches, self._places = batches, places
        self.sizes = [end - start for _, start, end in places]

    def read(self, number: int) -> Batch:
        batch, start, end = self._places[number]
        return part_of(self._batches[batch], start, end)


def cut(batches: Sequence[Batch], most: int) -> Parts:
    """Cut batches into even parts of at most `most` inputs, but of at least two: one is a special case to some code."""
    sizes = sizes_of(batches)
    return Parts(batches, [(n, start, end) for n, size in enumerate(sizes) for start, end in _cuts(size, most)])


def first(batches: Sequence[Batch], count: int) -> Parts:
    """The first inputs, up to that many."""
    sizes = sizes_of(batches)
    kept = (size - max(0, end - count) for size, end in zip(sizes, accumulate(sizes), strict=True))
    return Parts(batches, [(number, 0, size) for number, size in enumerate(kept) if size > 0])


def sizes_of(batches: Sequence[Batch]) -> Sequence[int]:
    """Number of inputs in each batch."""
    return batches.sizes if isinstance(batches, Batches) else [size_of(batch) for batch in batches]


def size_of(batch: Batch) -> int:
    """Number of inputs in a batch."""
    return len(tensors_of(batch)[0])


def part_of(batch: Batch, start: int, end: int) -> Batch:
    """Some inputs of a batch."""
    return take(tuple(batch), slice(start, end), size_of(batch))


def take(values: T, index: slice | Tensor, size: int) -> T:
    """Some examples of inputs, targets or outputs in any nesting.

    Args:
        values: Tensors with `size` rows and lists of `size` mappings are chosen from; everything else, such as a mask
            for all, stays whole.
        index: The numbers of the examples.
        size: Number of examples.
    """

    def some(leaf: Any) -> Any:
        if isinstance(leaf, list):
            return leaf[index] if isinstance(index, slice) else [leaf[number] for number in index.tolist()]
        return leaf[index] if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == size else leaf

    found: T = tree_map(some, values, is_leaf=lambda value: _is_listed(value) and len(value) == size)
    return found


def joined(parts: Sequence[Any]) -> Any:
    """Inputs, targets or outputs of several batches in any nesting as those of one: the reverse of `take`."""
    if len(parts) == 1:
        return parts[0]
    trees = [tree_flatten(part, is_leaf=_is_listed) for part in parts]
    return tree_unflatten([_joined(leaves) for leaves in zip(*(tree[0] for tree in trees), strict=True)], trees[0][1])


def placed(values: T, device: torch.device | str) -> T:
    """Move all tensors in any nesting to a device."""
    elsewhere = torch.device(device).type != "cpu"

    def move(leaf: Any) -> Any:
        return leaf.to(device, non_blocking=elsewhere) if isinstance(leaf, Tensor) else leaf

    moved: T = tree_map(move, values)
    return moved


def floating(values: Any) -> list[Tensor]:
    """The floating-point tensors of what a network returns, in any nesting."""
    leaves = tree_leaves(plain(values))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def plain(returned: Any) -> Any:
    """What a network returns, as a dictionary where it is some other kind of mapping."""
    return dict(returned) if hasattr(returned, "items") else returned


def tensors_of(batch: Batch) -> list[Tensor]:
    """The tensors of a batch, also those in dictionaries and lists."""
    return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]


def _cuts(size: int, most: int) -> list[tuple[int, int]]:
    count = max(1, min(-(-size // max(2, most)), size // 2))
    return list(pairwise(size * n // count for n in range(count + 1)))


def _is_listed(value: Any) -> bool:
    """Whether a value is a list with a mapping for every example."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _joined(leaves: Sequence[Any]) -> Any:
    if isinstance(leaves[0], list):
        return [item for leaf in leaves for item in leaf]
    return torch.cat(list(leaves)) if isinstance(leaves[0], Tensor) and leaves[0].dim() else leaves[0]
