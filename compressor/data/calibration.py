"""A fixed choice of training images for the selection to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import IterableDataset

from compressor.data.augment import seeded
from compressor.data.base import Data
from compressor.errors import InputError
from compressor.support.batches import Batches
from compressor.tasks import Task

KEPT_BYTES = 2**28
"""Images up to which all are kept; of more, a batch is read when it is asked for."""


def calibration_batches(
    data: Data, images: int, batch_size: int, seed: int
) -> tuple[Sequence[tuple[Tensor, ...]], Sequence[Any] | None]:
    """Choose training images at random, the same ones for the same seed.

    Args:
        data: The data of the run.
        images: How many images; all, when there are fewer.
        batch_size: Images per batch.
        seed: Seeds the choice.

    Returns:
        Batches of inputs, each what `model(*batch)` takes; and their targets, or None when there are no labels.

    Raises:
        InputError: there is no image at all, or an item is not as it should be.
    """
    inputs, labels = _batches(data, 0, images, batch_size, seed)
    if not inputs:
        raise InputError("there are no calibration images", where="data", cure="check data.source and data.root")
    return inputs, labels


def other_batches(data: Data, images: int, batch_size: int, seed: int) -> Sequence[tuple[Tensor, ...]]:
    """Choose as many training images, or as are left, that `calibration_batches` with the same arguments does not.

    Returns:
        Batches of inputs.
    """
    return _batches(data, images, images, batch_size, seed)[0]


class _Read:
    """Batches of chosen items of a dataset, each read when it is asked for; the last one is kept.

    What is drawn at random while an item is read depends on the seed and on the number of the batch alone.
    """

    def __init__(self, data: Data, chosen: Sequence[Sequence[int]], seed: int) -> None:
        self._dataset: Any = data.calibration
        self._task, self._chosen, self._seed = data.task, chosen, seed
        self.sizes = [len(batch) for batch in chosen]
        self._last: tuple[int, tuple[tuple[Tensor, ...], Any]] | None = None

    def __call__(self, number: int) -> tuple[tuple[Tensor, ...], Any]:
        if self._last is None or self._last[0] != number:
            self._last = None
            with seeded(hash((self._seed, number))):
                self._last = number, _collated([self._dataset[i] for i in self._chosen[number]], self._task)
        return self._last[1]


class _Inputs(Batches):
    def __init__(self, batches: _Read) -> None:
        self._batches, self.sizes = batches, batches.sizes

    def read(self, number: int) -> tuple[Tensor, ...]:
        return self._batches(number)[0]


class _Labels(Sequence[Any]):
    def __init__(self, batches: _Read) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches.sizes)

    def __getitem__(self, number: Any) -> Any:
        return self._batches(range(len(self))[number])[1]


def _batches(
    data: Data, start: int, count: int, size: int, seed: int
) -> tuple[Sequence[tuple[Tensor, ...]], Sequence[Any] | None]:
    """Inputs and targets of up to `count` items."""
    dataset: Any = data.calibration
    if isinstance(dataset, IterableDataset):
        with seeded(seed):
            return _kept(list(islice(dataset, start, start + count)), size, data.task)
    with seeded(seed):
        chosen = torch.randperm(len(dataset))[start : start + count].tolist()
        first = [dataset[i] for i in chosen[:1]]
        if len(chosen) * sum(map(_bytes, first)) <= KEPT_BYTES:
            return _kept([*first, *(dataset[i] for i in chosen[1:])], size, data.task)
    read = _Read(data, list(_split(chosen, size)), seed)
    return _Inputs(read), _Labels(read) if read(0)[1] is not None else None


def _kept(items: list[Any], size: int, task: Task) -> tuple[list[tuple[Tensor, ...]], list[Any] | None]:
    batches = [_collated(batch, task) for batch in _split(items, size)]
    labels = [label for _, label in batches if label is not None]
    return [inputs for inputs, _ in batches], labels or None


def _split(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _bytes(item: Any) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(item) if isinstance(leaf, Tensor))


def _collated(items: list[Any], task: Task) -> tuple[tuple[Tensor, ...], Any]:
    """Inputs and targets of a batch."""
    try:
        batch = task.collate(items)
    except (TypeError, RuntimeError) as error:
        cure = f"give {task.batch}, or single inputs, of one shape"
        raise InputError(f"items cannot be put together to a batch: {error}", where="data.source", cure=cure) from error
    return task.split(batch)
