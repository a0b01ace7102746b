"""Any classification data set of torchvision that is already on disk."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image
from torchvision import datasets

from compressor.data.base import Data, ImageError, Source
from compressor.data.images import image_data
from compressor.errors import InputError
from compressor.recipe import DataSection
from compressor.support.suggest import nearest

VALIDATION = ("val", "valid", "validation", "test")


@dataclass(frozen=True)
class Checked:
    """A torchvision data set whose faults are reported with the number of the image."""

    dataset: Any
    name: str

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        try:
            image, label = self.dataset[index]
            return image, int(label)
        except Exception as error:  # decoders and data sets raise all kinds
            raise ImageError(
                f"image {index} cannot be used ({type(error).__name__}: {error})",
                where=self.name,
                cure="repair the data set; it must give (image, class number)",
            ) from error


class Torchvision(Source):
    """`torchvision:CIFAR10` and the like, below `data.root`; `data.args` are handed on. Nothing is ever downloaded."""

    name: ClassVar[str] = "torchvision"

    def load(self, section: DataSection, model_input: tuple[int, ...], seed: int) -> Data:
        """Open the training and the validation part."""
        name = section.source.partition(":")[2]
        builder = _class(name)
        accepted = inspect.signature(builder).parameters
        if "train" in accepted:
            train, validation = (_open(builder, section, train=train) for train in (True, False))
        elif "split" in accepted:
            train, validation = _open(builder, section, split="train"), _validation(builder, section)
        else:
            raise InputError(
                f"torchvision's {name} has no training and validation part",
                where="data.source",
                cure="use imagefolder, or your own module:callable",
            )
        return image_data(
            Checked(train, f"torchvision:{name}, training part"),
            Checked(validation, f"torchvision:{name}, validation part"),
            section,
            model_input,
            seed,
            classes=list(map(str, getattr(train, "classes", []))) or None,
        )


def _class(name: str) -> Any:
    if name not in datasets.__all__:
        near = nearest(name, datasets.__all__, 3)
        raise InputError(
            f"torchvision has no data set '{name}'",
            where="data.source",
            cure=f"did you mean {' or '.join(near)}?"
            if near
            else "write it as torchvision does, such as torchvision:CIFAR10",
        )
    return getattr(datasets, name)


def _open(builder: Any, section: DataSection, **part: Any) -> Any:
    arguments = {**({"root": section.root} if section.root else {}), **section.args, **part}
    try:
        return builder(**arguments)
    except Exception as error:  # every data set has checks of its own
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if key != "root")
        reason = f"({type(error).__name__}: {error})"
        raise InputError(
            f"torchvision's {builder.__name__}({given}) cannot be read from {section.root} {reason}",
            where="data.root",
            cure="put the data set there, in the form that torchvision keeps it in; nothing is downloaded",
        ) from error


def _validation(builder: Any, section: DataSection) -> Any:
    """The first part that the data set has: it refuses a name it does not know with a ValueError."""
    fault: InputError | None = None
    for name in VALIDATION:
        try:
            return _open(builder, section, split=name)
        except InputError as error:
            if not isinstance(error.__cause__, ValueError):
                raise
            fault = error
    assert fault is not None
    raise fault
