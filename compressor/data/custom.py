"""Loaders that the user's own callable returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, ClassVar

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from compressor.data.base import Data, Source
from compressor.errors import InputError
from compressor.recipe import DataSection
from compressor.support.imports import call_named
from compressor.tasks import Task

KEYS = ("train", "validation", "calibration", "classes")
CONTRACT = "return (train, validation), or a dict with some of " + ", ".join(KEYS)


class Samples(IterableDataset[Any]):
    """The single samples of an iterable of batches, in its order."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            if isinstance(batch, Tensor):
                yield from batch
            else:
                yield from zip(*batch, strict=True)


class Custom(Source):
    """`module:callable` or `path/to/file.py:callable`.

    The callable gets `data.args` as keyword arguments, and `root` when `data.root` is set. It returns
    `(train, validation)` or a dict with the keys

    - `train`: a DataLoader of batches (input, …, labels), or what the task splits, shuffled and augmented as you like;
    - `validation`: a DataLoader of such batches in a fixed order;
    - `calibration`: a data set or list of (input, …, label), or of single inputs; without it, the samples of `train`;
    - `classes`: the names of the classes.

    Any iterable of batches with a length will do in place of a DataLoader. Without labels, return only `calibration`.
    `data.normalize`, `data.batch_size`, `data.workers` and `data.augment` do not apply.
    """

    name: ClassVar[str] = "custom"

    def load(self, section: DataSection, model_input: tuple[int, ...], seed: int) -> Data:
        """Call the callable, and check what it returns."""
        args = {**({"root": section.root} if section.root else {}), **section.args}
        parts = _as_dict(call_named(section.source, args, where="data.source", where_args="data.args"))
        train, validation, calibration = (parts.get(key) for key in KEYS[:3])
        for key in ("train", "validation"):
            if parts.get(key) is not None:
                _check_loader(key, parts[key], model_input, self.task)
        if (train is None) != (validation is None) or (train is None and calibration is None):
            raise _wrong("it gives neither both of train and validation, nor calibration alone")
        samples: Any = train if calibration is None else calibration
        if isinstance(samples, DataLoader) and not isinstance(samples.dataset, IterableDataset):
            samples = samples.dataset
        elif calibration is None or not hasattr(samples, "__getitem__"):
            samples = Samples(samples)
        aligned = train is not None and samples is getattr(train, "dataset", None)
        return Data(train, samples, validation, parts.get("classes"), aligned)


def _check_loader(key: str, loader: Any, model_input: tuple[int, ...], task: Task) -> None:
    if not isinstance(loader, Iterable):
        raise _wrong(f"'{key}' is a {type(loader).__name__}, not a loader")
    try:
        if not isinstance(loader, Sized) or not len(loader):
            return
    except TypeError:  # of a loader over a dataset that has no length
        return
    batch = next(iter(loader))
    if not task.is_batch(batch):
        raise _wrong(f"a batch of '{key}' is no {task.batch}: it is a {type(batch).__name__}")
    inputs, _ = task.split(batch)
    if len(inputs) == 1 and tuple(inputs[0].shape[1:]) != tuple(model_input):
        raise _wrong(f"inputs of '{key}' are of shape {list(inputs[0].shape[1:])}, model.input is {list(model_input)}")


def _as_dict(returned: Any) -> Mapping[str, Any]:
    if isinstance(returned, (tuple, list)) and len(returned) == 2:
        return {"train": returned[0], "validation": returned[1]}
    if not isinstance(returned, Mapping):
        raise _wrong(f"it returned {type(returned).__name__}")
    unknown = [str(key) for key in returned if key not in KEYS]
    if unknown:
        raise _wrong(f"it returned the unknown keys {', '.join(unknown)}")
    return returned


def _wrong(problem: str) -> InputError:
    return InputError(problem, where="data.source", cure=CONTRACT)
