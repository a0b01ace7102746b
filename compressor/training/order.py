"""The order of the images, and every other random choice, is a function of the seed, the epoch and the batch.

So a training can go on in the middle of an epoch: nothing that was drawn before has to be known.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from accelerate import PartialState, skip_first_batches
from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Order:
    """The batches of every epoch.

    Attributes:
        loader: Its `generator` and that of its sampler, where there are any, decide the order of the images.
        shard: The same loader as Accelerate prepared it: what this process gets of every batch.
        seed: The run's seed.
    """

    loader: Iterable[Any]
    shard: Iterable[Any]
    seed: int

    def batches(self, epoch: int, begin: int = 0) -> Iterator[tuple[int, Any]]:
        """The batches of an epoch with their numbers, from number `begin` on.

        Earlier ones are not read where the data set says `stateless = True`: an item depends on nothing but its index.
        Otherwise they are read and thrown away, so that whatever they would have changed is changed.
        """
        shard, first = self.shard, 0
        if begin and isinstance(shard, DataLoader) and getattr(shard.dataset, "stateless", False):
            shard, first = skip_first_batches(shard, begin), begin
        self._seed_generators(epoch)
        seed_everything(self.seed, epoch, 0)
        batches = iter(shard)
        for number in count(first):
            try:
                batch = next(batches)
            except StopIteration:
                return
            if number == first > 0:
                seed_everything(self.seed, epoch, number)
            if number >= begin:
                yield number, batch
            seed_everything(self.seed, epoch, number + 1)

    def _seed_generators(self, epoch: int) -> None:
        for owner in (self.loader, getattr(self.loader, "sampler", None)):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(mix(self.seed, epoch))


def seed_everything(*numbers: int) -> None:
    """Seed the global generators of Python, NumPy and torch by several numbers; otherwise in every process."""
    mixed = mix(*numbers, PartialState().process_index)
    random.seed(mixed)
    np.random.seed(mixed)
    torch.default_generator.manual_seed(mixed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(mixed)


def mix(*numbers: int) -> int:
    """One seed of 32 bits out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
