"""Training images that are kept out of training, so that what it gives can be judged by them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler, Subset

from compressor.data.augment import seeded
from compressor.data.base import Data, HeldOut
from compressor.support.batches import size_of

SHARE, FEWEST, MOST = 0.05, 64, 1000
LARGEST = 1 / 8
"""Share of the images that is never exceeded: of few images, most have to be left to train on."""
FIRST = 256
"""Images that judge where none can be taken out."""


def hold_out(data: Data, calibration: int, seed: int) -> Data:
    """Take some training images out of training, and out of the calibration.

    Of a loader that is no DataLoader over a dataset with a length, or has a sampler of its own, none can be taken out:
    then the first batches of a training judge it, though it learns from them.

    Args:
        data: The data of a run; without labels it stays as it is.
        calibration: Number of images that `calibration_batches` is asked for with the same seed. None of them is taken
            out where there are enough.
        seed: Seeds the choice.
    """
    if data.train is None:
        return data
    problem = _problem(data.train)
    if problem or not isinstance(data.train, DataLoader):
        return replace(data, held_out=HeldOut(First(data.train, FIRST), problem))
    loader, dataset, images = data.train, data.train.dataset, _count(data.train)
    with seeded(seed):
        order = torch.randperm(len(dataset)).tolist()  # type: ignore[arg-type]
    kept, held = sorted(order[:-images]), sorted(order[-images:])
    judged = Part(data.calibration if data.aligned else dataset, held)
    changed = replace(data, train=_like(loader, Part(dataset, kept)), held_out=HeldOut(_in_order(loader, judged)))
    if data.aligned and calibration > len(kept):
        changed = replace(changed, calibration=Part(data.calibration, kept))
    return changed


class Part(Subset[Any]):
    """Some items of a dataset, which are as stateless as it is."""

    def __init__(self, dataset: Dataset[Any], indices: Sequence[int]) -> None:
        super().__init__(dataset, indices)
        self.stateless = getattr(dataset, "stateless", False)


class First:
    """The first batches of a loader that hold so many images, read once."""

    def __init__(self, loader: Iterable[Any], images: int) -> None:
        self._loader, self._images = loader, images
        self._batches: list[Any] | None = None
        self.generator = getattr(loader, "generator", None)
        self.sampler = getattr(loader, "sampler", None)

    def __iter__(self) -> Iterator[Any]:
        if self._batches is None:
            self._batches = list(self._read())
        return iter(self._batches)

    def _read(self) -> Iterator[Any]:
        images = 0
        for batch in self._loader:
            yield batch
            images += size_of(batch)
            if images >= self._images:
                return


def _count(loader: DataLoader[Any]) -> int:
    """How many images are taken out."""
    images, size = len(loader.dataset), loader.batch_size or 1  # type: ignore[arg-type]
    count = int(min(max(SHARE * images, FEWEST), MOST, LARGEST * images))
    return count + (size > 1 and (images - count) % size == 1)  # batch norm cannot learn from a batch of one image


def _problem(loader: Iterable[Any]) -> str | None:
    """Why no image can be taken out of a loader."""
    if type(loader) is not DataLoader:
        return f"the training loader is a {type(loader).__name__}, not a DataLoader"
    if isinstance(loader.dataset, IterableDataset) or not isinstance(loader.dataset, Sized):
        return f"the training images come one after another from a {type(loader.dataset).__name__}, which has no length"
    if loader.batch_size is None or not _is_plain(loader.sampler, len(loader.dataset)):
        chooser = loader.sampler if loader.batch_size else loader.batch_sampler or loader.sampler
        return f"the {type(chooser).__name__} of the training loader chooses among all images"
    return None if _count(loader) > 1 else f"there are only {len(loader.dataset)} training images"


def _is_plain(sampler: Any, images: int) -> bool:
    """Whether a sampler does nothing but go through all images, in order or shuffled."""
    shuffled = type(sampler) is RandomSampler and not sampler.replacement
    return (shuffled or type(sampler) is SequentialSampler) and len(sampler) == images


def _like(loader: DataLoader[Any], dataset: Part) -> DataLoader[Any]:
    """A loader of a part of the images, with all settings of another one."""
    sampler, full = loader.sampler, len(dataset) >= (loader.batch_size or 1)
    return DataLoader(
        dataset,
        sampler=RandomSampler(dataset, generator=sampler.generator) if isinstance(sampler, RandomSampler) else None,
        drop_last=loader.drop_last and (full or len(loader) == 0),
        generator=loader.generator,
        persistent_workers=loader.persistent_workers,
        **_settings(loader),
    )


def _in_order(loader: DataLoader[Any], dataset: Part) -> DataLoader[Any]:
    """A loader of a part of the images, one after another."""
    return DataLoader(dataset, **_settings(loader))


def _settings(loader: DataLoader[Any]) -> dict[str, Any]:
    names = ("batch_size", "num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "prefetch_factor")
    return {name: getattr(loader, name) for name in (*names, "multiprocessing_context", "in_order")}
