"""The learning rate of those who give none."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from compressor.recipe import FinetuneSection
from compressor.training.loop import finetune
from compressor.training.rate import with_rate
from tests.training.conftest import Tiny


def rate(images: int, batch: int, **settings: object) -> float | None:
    loader = DataLoader(TensorDataset(torch.zeros(images)), batch)
    return with_rate(FinetuneSection(**settings), loader).lr  # type: ignore[arg-type]


@pytest.mark.parametrize(("images", "batch", "epochs"), [(50_000, 128, 1), (16_000, 256, 2), (16_000, 128, 1)])
def test_a_long_training_takes_the_full_rate(images: int, batch: int, epochs: int) -> None:
    assert rate(images, batch, epochs=epochs) == 0.02


def test_fewer_steps_and_smaller_batches_lower_it() -> None:
    assert rate(6400, 128, epochs=1) == pytest.approx(0.008)
    assert rate(6400, 128, epochs=2) == pytest.approx(0.016)
    assert rate(12_800, 64, epochs=1) == pytest.approx(0.01)
    assert rate(12_800, 64, epochs=2, accumulate=2) == pytest.approx(0.02)


def test_a_rate_that_is_given_stays_and_no_training_needs_none() -> None:
    assert rate(128, 64, epochs=1, lr=0.3) == 0.3
    assert rate(128, 64, epochs=0) is None


def test_training_uses_it(images: torch.Tensor, labels: torch.Tensor) -> None:
    loader = DataLoader(TensorDataset(images, labels), 16)
    history = finetune(Tiny(), None, loader, FinetuneSection(epochs=2, warmup=0.0, schedule="constant"))
    assert [entry.lr for entry in history] == [0.00012] * 2  # 0.02 * 6 / 125 * 16 / 128
