"""The mean of the last weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils.data import DataLoader

from compressor.recipe import FinetuneSection
from compressor.training import trainer
from compressor.training.average import Average
from compressor.training.loop import finetune
from tests.training.conftest import Tiny

Make = Callable[[], DataLoader]


def fill(model: Tiny, value: float) -> None:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(int(value))


def test_the_mean_of_weights_and_statistics_replaces_them() -> None:
    model = Tiny()
    average = Average(model)
    for value in (1, 2, 6):
        fill(model, value)
        average.add()
    average.apply()
    assert torch.allclose(model.conv.weight, torch.tensor(3.0))
    assert torch.allclose(model.norm.running_var, torch.tensor(3.0))
    assert model.norm.num_batches_tracked == 6


def test_nothing_added_changes_nothing() -> None:
    model = Tiny()
    Average(model).apply()
    assert torch.equal(model.conv.weight, Tiny().conv.weight)


def test_a_state_goes_on_where_it_was() -> None:
    model = Tiny()
    first, second = Average(model), Average(model)
    fill(model, 1)
    first.add()
    second.load_state_dict(first.state_dict())
    fill(model, 3)
    second.add()
    second.apply()
    assert torch.allclose(model.conv.weight, torch.tensor(2.0))


def test_training_ends_with_the_mean_of_the_last_steps(
    make_loader: Make, settings: FinetuneSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_REPORTS", 0.0)
    plain, averaged, seen = Tiny(), Tiny(), list[torch.Tensor]()
    finetune(plain, None, make_loader(), settings, progress=lambda _: seen.append(plain.conv.weight.detach().clone()))
    finetune(averaged, None, make_loader(), settings.model_copy(update={"average": 4 / 9}))
    assert torch.allclose(averaged.conv.weight, torch.stack(seen[-4:]).mean(0), atol=1e-6)
