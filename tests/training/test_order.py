"""The order of the images, and every draw, depend only on the seed, the epoch and the batch."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader, Dataset

from compressor.training.order import Order, seed_everything


@pytest.fixture(autouse=True)
def process() -> None:
    PartialState()


class Noisy(Dataset):
    """Items that depend on the global generators."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, random.random(), np.random.random(), float(torch.rand(()))])


class Stateless(Dataset):
    """Items that depend on their index alone; counts how many are read."""

    stateless = True

    def __init__(self) -> None:
        self.read = 0

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> int:
        self.read += 1
        return index


def values(order: Order, epoch: int, begin: int = 0) -> list[tuple[int, list, float]]:
    """The batches, and what a step draws after each."""
    return [(n, batch.tolist(), float(torch.rand(()))) for n, batch in order.batches(epoch, begin)]


@pytest.mark.parametrize("data", [Noisy, Stateless])
@pytest.mark.parametrize("generator", [torch.Generator(), None], ids=["own generator", "global generator"])
def test_an_epoch_is_the_same_wherever_it_is_begun(data: type, generator: torch.Generator | None) -> None:
    loader = DataLoader(data(), batch_size=8, shuffle=True, generator=generator)
    order = Order(loader, loader, seed=3)
    whole = values(order, 1)
    assert len(whole) == 8
    torch.manual_seed(999)
    assert values(order, 1, begin=5) == whole[5:]
    assert values(order, 1) == whole


def test_epochs_and_seeds_differ() -> None:
    loader = DataLoader(Noisy(), batch_size=64, shuffle=True, generator=torch.Generator())
    first, second, other = (
        values(Order(loader, loader, seed), epoch)[0][1] for seed, epoch in ((0, 0), (0, 1), (1, 0))
    )
    assert first != second != other != first


def test_what_is_stateless_is_not_read_to_be_thrown_away() -> None:
    data = Stateless()
    loader = DataLoader(data, batch_size=8)
    assert [number for number, _ in Order(loader, loader, 0).batches(0, 6)] == [6, 7]
    assert data.read == 16


def test_python_numpy_and_torch_draw_the_same_numbers_again() -> None:
    def draw() -> tuple[float, float, float]:
        seed_everything(3, 2)
        return random.random(), np.random.random(), float(torch.rand(()))

    assert draw() == draw()
