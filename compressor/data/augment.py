"""Random changes of whole batches, fast enough for one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import pad

Augment = Callable[[Tensor], Tensor]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make torch's random numbers on the CPU a function of `seed`; afterwards, go on as if none had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def shift(images: Tensor, pixels: int) -> Tensor:
    """Move every image by up to `pixels` each way, filling up with black.

    Args:
        images: uint8 [batch, channels, height, width].
        pixels: The largest move.

    Returns:
        Images of the same shape.
    """
    batch, _, height, width = images.shape
    top, left = torch.randint(0, 2 * pixels + 1, (2, batch, 1))
    rows = (top + torch.arange(height))[:, :, None]
    columns = (left + torch.arange(width))[:, None, :]
    padded = pad(images, (pixels,) * 4)
    return padded.permute(0, 2, 3, 1)[torch.arange(batch)[:, None, None], rows, columns].permute(0, 3, 1, 2)


def flip(images: Tensor) -> Tensor:
    """Mirror every second image, by chance."""
    mirrored = torch.rand(len(images), 1, 1, 1) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def shift_and_flip(images: Tensor) -> Tensor:
    """The usual for small photographs: move by up to an eighth of the height, and mirror."""
    return flip(shift_only(images))


def shift_only(images: Tensor) -> Tensor:
    """For images that mean something else in the mirror: move by up to an eighth of the height."""
    return shift(images, images.shape[2] // 8)
