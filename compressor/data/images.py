"""From pictures on disk to batches: decoded once where memory allows, augmented and normalised a batch at a time."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import pil_to_tensor

from compressor.data.augment import Augment, flip, seeded, shift_and_flip
from compressor.data.base import Data, ImageError
from compressor.errors import InputError
from compressor.recipe import DataSection, Normalize

SMALL = 64
MEMORY = 1 << 30
BORDER = 0.0625


class Pictures(Protocol):
    """A sequence of pictures and their labels; the label is None where there are no labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int | None]: ...


Fit = Callable[[Image.Image], Image.Image]


@dataclass
class Store:
    """Pictures as uint8 tensors of one shape. While all of them fit into memory, each is decoded only once.

    Attributes:
        pictures: What to read.
        shape: Channels (1 or 3), height, width.
        fit: Brings a picture to that height and width.
        keep: Whether to remember what was decoded; the memory is shared with the loader's worker processes.
    """

    pictures: Pictures
    shape: tuple[int, int, int]
    fit: Fit
    keep: bool

    def __post_init__(self) -> None:
        count = len(self.pictures)
        self.keep = self.keep and count * self.shape[0] * self.shape[1] * self.shape[2] <= MEMORY
        if self.keep:
            self.images = _shared((count, *self.shape), torch.uint8)
            self.labels = _shared((count,), torch.int64)
            self.known = _shared((count,), torch.uint8)

    def fetch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images [batch, channels, height, width] and labels [batch] (-1 where there are none)."""
        if not self.keep:
            images, labels = zip(*(self._decode(i) for i in indices), strict=True)
            return torch.stack(images), torch.tensor(labels)
        rows = torch.tensor(indices)
        for i in rows[self.known[rows] == 0].tolist():
            self.images[i], self.labels[i] = self._decode(i)
            self.known[i] = 1
        return self.images[rows], self.labels[rows]

    def _decode(self, index: int) -> tuple[Tensor, int]:
        image, label = self.pictures[index]
        image = image.convert("L" if self.shape[0] == 1 else "RGB")
        return pil_to_tensor(self.fit(image)), -1 if label is None else label


class ImageBatches(Dataset[Any]):
    """A store as a data set. A loader gets its batches whole, by `__getitems__`.

    Augmentation is a function of the seed and of the batch's indices alone: it depends neither on the number of workers
    nor on where a training run was interrupted. Shuffling makes the batches of every epoch others.
    """

    stateless = True

    def __init__(
        self, store: Store, normalize: Normalize | None, augment: Augment | None, seed: int, labelled: bool
    ) -> None:
        channels = store.shape[0]
        mean, std = (normalize.mean, normalize.std) if normalize else ((0.0,) * channels, (1.0,) * channels)
        self.scale = 1 / (255 * torch.tensor(std).view(-1, 1, 1))
        self.offset = -torch.tensor(mean).view(-1, 1, 1) / torch.tensor(std).view(-1, 1, 1)
        self.store, self.augment, self.seed, self.labelled = store, augment, seed, labelled

    def __len__(self) -> int:
        return len(self.store.pictures)

    def __getitem__(self, index: int) -> Any:
        batch = self.__getitems__([index])
        return (batch[0][0], batch[1][0]) if self.labelled else batch[0]

    def __getitems__(self, indices: Sequence[int]) -> Any:
        with seeded(hash((self.seed, *indices))):
            images, labels = self.store.fetch(indices)
            images = self.augment(images) if self.augment else images
        inputs = torch.addcmul(self.offset, images.float(), self.scale)
        return (inputs, labels) if self.labelled else inputs


def image_data(
    train: Pictures,
    validation: Pictures | None,
    section: DataSection,
    model_input: tuple[int, ...],
    seed: int,
    *,
    classes: list[str] | None = None,
    augment: Augment = shift_and_flip,
) -> Data:
    """Make the loaders of a source of pictures.

    For evaluation, a picture of another size than the network's input is resized and its centre is cut out; above 64
    pixels, a border of a sixteenth is left out (224 of 256, as is usual). For training, small images are moved and
    mirrored, larger ones cut out at random (`RandomResizedCrop`) and mirrored.

    Args:
        train: The training pictures.
        validation: The validation pictures, or None when there are no labels.
        section: The recipe's `data` section.
        model_input: Channels (1 or 3), height and width.
        seed: Seeds shuffling and augmentation.
        classes: Names of the classes.
        augment: What is done to small training images.

    Returns:
        The loaders.
    """
    shape = _check_shape(model_input, section.normalize)
    small = max(shape[1:]) <= SMALL
    centre = Store(train, shape, _centre(shape), keep=True)

    def batches(store: Store, change: Augment | None = None) -> ImageBatches:
        return ImageBatches(store, section.normalize, change, seed, labelled=validation is not None)

    calibration = batches(centre)
    if validation is None:
        return Data(None, calibration, None, classes)
    if not section.augment:
        training = calibration
    elif small:
        training = batches(centre, augment)
    else:
        training = batches(Store(train, shape, _random_part(shape), keep=False), flip)
    return Data(
        train=_loader(training, section, torch.Generator().manual_seed(seed)),
        calibration=calibration,
        validation=_loader(batches(Store(validation, shape, _centre(shape), keep=True)), section),
        classes=classes,
        aligned=True,
    )


def open_picture(path: str) -> Image.Image:
    """Decode an image file.

    Raises:
        ImageError: it cannot be decoded; the message names it.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:  # whatever a decoder raises means that the file is of no use
        raise ImageError(
            f"the image cannot be decoded ({error})", where=str(path), cure="repair or remove the file"
        ) from error


def _loader(dataset: ImageBatches, section: DataSection, generator: torch.Generator | None = None) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=section.batch_size,
        shuffle=generator is not None,
        drop_last=generator is not None and len(dataset) >= section.batch_size,
        generator=generator,
        num_workers=section.workers,
        collate_fn=_whole,
    )


def _whole(batch: Any) -> Any:
    return batch


def _centre(shape: tuple[int, int, int]) -> Fit:
    size = (shape[2], shape[1])
    bleed = BORDER if max(size) > SMALL else 0.0

    def fit(image: Image.Image) -> Image.Image:
        return image if image.size == size else ImageOps.fit(image, size, Image.Resampling.BILINEAR, bleed)

    return fit


def _random_part(shape: tuple[int, int, int]) -> Fit:
    return RandomResizedCrop(shape[1:], interpolation=InterpolationMode.BILINEAR)


def _shared(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros that forked processes share; memory is taken from the system when it is first written."""
    size = dtype.itemsize
    for length in shape:
        size *= length
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(shape)


def _check_shape(model_input: tuple[int, ...], normalize: Normalize | None) -> tuple[int, int, int]:
    if len(model_input) != 3 or model_input[0] not in (1, 3):
        raise InputError(
            f"images have the shape [1 or 3, height, width], not {list(model_input)}",
            where="model.input",
            cure="correct it, or use a data source of your own: data.source: module:callable",
        )
    channels, height, width = model_input
    for field in ("mean", "std"):
        count = len(getattr(normalize, field)) if normalize else channels
        if count != channels:
            raise InputError(
                f"it has {count} values, but model.input has {channels} channels",
                where=f"data.normalize.{field}",
                cure=f"give {channels} values",
            )
    return channels, height, width
