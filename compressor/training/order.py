"""Every random choice of an epoch depends only on the seed and the epoch's number."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from accelerate.utils import set_seed


def seed_epoch(loader: Iterable[object], seed: int, epoch: int) -> None:
    """Seed Python, NumPy, torch and the generators of the loader, so that an epoch can be run again on its own.

    Args:
        loader: Its `generator` and that of its sampler, where there are any, decide the order of the images.
        seed: The run's seed.
        epoch: Number of the epoch.
    """
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    set_seed(mixed, device_specific=True)
    for owner in (loader, getattr(loader, "sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(mixed)
