"""A fixed choice of training images for the selection to look at."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate

from compressor.data.augment import seeded
from compressor.data.base import Data
from compressor.errors import InputError

ITEMS = "give (input, …, label), or single inputs, of one shape"


def calibration_batches(
    data: Data, images: int, batch_size: int, seed: int
) -> tuple[list[tuple[Tensor, ...]], list[Tensor] | None]:
    """Choose training images at random, the same ones for the same seed.

    Args:
        data: The data of the run.
        images: How many images; all, when there are fewer.
        batch_size: Images per batch.
        seed: Seeds the choice.

    Returns:
        Batches of inputs, each what `model(*batch)` takes; and their labels, or None when there are no labels.

    Raises:
        InputError: there is no image at all, or an item is not as it should be.
    """
    with seeded(seed):
        items = _items(data.calibration, 0, images)
    if not items:
        raise InputError("there are no calibration images", where="data", cure="check data.source and data.root")
    return _batches(items, batch_size)


def other_batches(data: Data, images: int, batch_size: int, seed: int) -> list[tuple[Tensor, ...]]:
    """Choose as many training images, or as are left, that `calibration_batches` with the same arguments does not.

    Returns:
        Batches of inputs.
    """
    with seeded(seed):
        items = _items(data.calibration, images, images)
    return _batches(items, batch_size)[0] if items else []


def _batches(items: list[Any], batch_size: int) -> tuple[list[tuple[Tensor, ...]], list[Tensor] | None]:
    try:
        batches = [default_collate(items[i : i + batch_size]) for i in range(0, len(items), batch_size)]
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"items cannot be put together to a batch: {error}", where="data.source", cure=ITEMS
        ) from error
    if isinstance(items[0], Tensor):
        return [(batch,) for batch in batches], None
    if not isinstance(items[0], (tuple, list)):
        raise InputError(f"an item is a {type(items[0]).__name__}", where="data.source", cure=ITEMS)
    if len(items[0]) == 1:
        return [tuple(batch) for batch in batches], None
    return [tuple(batch[:-1]) for batch in batches], [batch[-1] for batch in batches]


def _items(dataset: Any, start: int, count: int) -> list[Any]:
    if isinstance(dataset, IterableDataset):
        return list(islice(dataset, start, start + count))
    chosen = torch.randperm(len(dataset))[start : start + count].tolist()
    return [dataset[i] for i in chosen]
