"""What a data source is, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.utils.data import Dataset

from compressor.errors import InputError
from compressor.recipe import DataSection
from compressor.tasks import DEFAULT, Task


@dataclass(frozen=True)
class HeldOut:
    """Training images to judge a training by.

    Attributes:
        batches: Batches with targets, the same ones at every pass.
        problem: Why the training learns from these images all the same; None where it does not.
    """

    batches: Iterable[Any]
    problem: str | None = None


@dataclass
class Data:
    """The images of a run.

    Attributes:
        train: Loader of shuffled and augmented batches with targets, or None without labels.
        calibration: Training images as they are evaluated: items with targets, or only inputs without labels.
        validation: Loader of batches with targets in a fixed order, or None without labels.
        classes: Names of the classes where they are known.
        aligned: Whether `calibration` has the items of the dataset of `train`, one by one.
        held_out: Training images that `train` lacks, where `hold_out` took some.
        task: What the images are for: it splits their batches.
    """

    train: Iterable[Any] | None
    calibration: Dataset[Any]
    validation: Iterable[Any] | None
    classes: list[str] | None
    aligned: bool = False
    held_out: HeldOut | None = None
    task: Task = DEFAULT

    @property
    def labelled(self) -> bool:
        """Whether there are labels to train and to measure quality with."""
        return self.train is not None and self.validation is not None


class Source(ABC):
    """A kind of data. One file of this package per source.

    Args:
        task: What the data is for.
    """

    name: ClassVar[str]

    def __init__(self, task: Task = DEFAULT) -> None:
        self.task = task

    @abstractmethod
    def load(self, section: DataSection, model_input: tuple[int, ...], seed: int) -> Data:
        """Open the data.

        Args:
            section: The recipe's `data` section.
            model_input: Shape of one input of the network.
            seed: Seeds shuffling and augmentation.

        Returns:
            The loaders.

        Raises:
            InputError: the data is missing or not as it should be.
        """


class ImageError(InputError):
    """An image that cannot be used.

    A loader's worker process hands over no exception but the text of its traceback: what follows this class's name
    in it is the message.
    """

    def __init__(self, problem: str, *, where: str | None = None, cure: str | None = None) -> None:
        super().__init__(problem.rpartition("compressor.data.base.ImageError: ")[2].strip(), where=where, cure=cure)
