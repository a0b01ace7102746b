"""A learning rate for those who give none: one that fits how long the training is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compressor.recipe import FULL_RATE, FinetuneSection
from compressor.training.length import count_batches

STEPS, IMAGES = 125, 128
"""From this many steps on, of batches of this many images, a training takes the full rate."""


def with_rate(settings: FinetuneSection, loader: Iterable[Any]) -> FinetuneSection:
    """Fill in `lr` where it is not given, from the number of steps and the images of each.

    A few steps at a high rate take more away than they can bring back, and small batches are noisy: the rate is
    proportional to both, up to the full one.
    """
    if settings.lr is not None or not settings.epochs:
        return settings
    steps = -(-count_batches(loader) // settings.accumulate) * settings.epochs
    images = (getattr(loader, "batch_size", None) or IMAGES) * settings.accumulate
    rate = FULL_RATE * min(1.0, steps / STEPS) * min(1.0, images / IMAGES)
    return settings.model_copy(update={"lr": float(f"{rate:.2g}")})
