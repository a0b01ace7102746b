"""A task that tiny networks learn in a moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compressor.recipe import FinetuneSection


class Tiny(nn.Module):
    """A convolution, a batch norm, dropout and a classifier."""

    def __init__(self, seed: int = 0, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(8 * 16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(torch.relu(self.norm(self.conv(x))).flatten(1)))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(48, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels(images: torch.Tensor) -> torch.Tensor:
    return (images.mean((1, 2, 3)) * 8).round().clamp(-1, 1).long() + 1


@pytest.fixture
def make_loader(images: torch.Tensor, labels: torch.Tensor) -> Callable[[], DataLoader]:
    def make() -> DataLoader:
        generator = torch.Generator().manual_seed(99)
        return DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True, generator=generator)

    return make


@pytest.fixture
def settings() -> FinetuneSection:
    return FinetuneSection.model_validate({"epochs": 3, "lr": 0.05, "warmup": 0.1})
