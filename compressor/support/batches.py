"""Batches of inputs that are read, or cut into smaller ones, at the moment they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, overload

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

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
    size = size_of(batch)

    def some(leaf: Any) -> Any:
        return leaf[start:end] if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == size else leaf

    return tuple(tree_map(some, batch))


def tensors_of(batch: Batch) -> list[Tensor]:
    """The tensors of a batch, also those in dictionaries and lists."""
    return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]


def _cuts(size: int, most: int) -> list[tuple[int, int]]:
    count = max(1, min(-(-size // max(2, most)), size // 2))
    return list(pairwise(size * n // count for n in range(count + 1)))
