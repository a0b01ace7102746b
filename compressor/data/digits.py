"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels that need no download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from compressor.data.augment import shift_only
from compressor.data.base import Data, Source
from compressor.data.images import image_data
from compressor.recipe import DataSection


@dataclass(frozen=True)
class Arrays:
    """Grey images as uint8 [count, height, width], and their labels."""

    images: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), int(self.labels[index])


class Digits(Source):
    """Three quarters to train, one quarter to validate, the same for every seed; enlarged to the network's input."""

    name: ClassVar[str] = "digits"

    def load(self, section: DataSection, model_input: tuple[int, ...], seed: int) -> Data:
        """Load the digits; training images are moved, but never mirrored."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images = (digits.images * (255 / 16)).round().astype(np.uint8)
        split = train_test_split(images, digits.target, test_size=0.25, random_state=0, stratify=digits.target)
        train, validation = Arrays(split[0], split[2]), Arrays(split[1], split[3])
        classes = [str(digit) for digit in range(10)]
        return image_data(train, validation, section, model_input, seed, classes=classes, augment=shift_only)
