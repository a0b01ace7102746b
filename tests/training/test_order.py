"""The order of the images depends only on the seed and the epoch."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader

from compressor.training.order import seed_epoch


@pytest.fixture(autouse=True)
def process() -> None:
    PartialState()


@pytest.mark.parametrize("generator", [torch.Generator(), None], ids=["own generator", "global generator"])
def test_an_epoch_comes_in_the_same_order_whatever_came_before(generator: torch.Generator | None) -> None:
    loader = DataLoader(range(64), batch_size=64, shuffle=True, generator=generator)

    def order(seed: int, epoch: int) -> list[int]:
        seed_epoch(loader, seed, epoch)
        return next(iter(loader)).tolist()

    first, second = order(0, 0), order(0, 1)
    assert order(0, 0) == first
    assert first != second != order(1, 0)


def test_python_numpy_and_torch_draw_the_same_numbers_again() -> None:
    def draw() -> tuple[float, float, float]:
        seed_epoch([], 3, 2)
        return random.random(), np.random.random(), float(torch.rand(()))

    assert draw() == draw()
