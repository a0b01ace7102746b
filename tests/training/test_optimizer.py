"""Weight decay, and the learning rate at every step."""

from __future__ import annotations

import pytest
import torch

from compressor.recipe import FinetuneSection
from compressor.training.optimizer import learning_rate, sgd
from compressor.training.schedules.constant import Constant
from compressor.training.schedules.cosine import Cosine
from tests.training.conftest import Tiny


def test_weight_decay_shrinks_weights_but_not_norms_and_biases(settings: FinetuneSection) -> None:
    model = Tiny()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = sgd(model, settings.model_copy(update={"weight_decay": 0.1}))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"conv.weight", "head.weight"}


def test_frozen_parameters_are_left_out(settings: FinetuneSection) -> None:
    model = Tiny()
    model.conv.requires_grad_(False)
    trained = {id(p) for group in sgd(model, settings).param_groups for p in group["params"]}
    assert trained == {id(p) for p in (*model.norm.parameters(), *model.head.parameters())}


def test_momentum_of_zero_is_plain_sgd(settings: FinetuneSection) -> None:
    optimizer = sgd(Tiny(), settings.model_copy(update={"momentum": 0.0}))
    assert not optimizer.defaults["nesterov"]


def test_the_rate_rises_evenly_to_the_full_rate_and_the_schedule_follows(settings: FinetuneSection) -> None:
    settings = settings.model_copy(update={"lr": 1.0, "warmup": 0.3})
    rates = [learning_rate(step, 10, settings, Constant()) for step in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])


def test_the_schedule_covers_the_steps_after_warm_up(settings: FinetuneSection) -> None:
    settings = settings.model_copy(update={"lr": 1.0, "warmup": 0.5})
    rates = [learning_rate(step, 8, settings, Cosine()) for step in range(4, 8)]
    assert rates == [Cosine().factor(step, 4) for step in range(4)]


def test_a_warm_up_that_takes_every_step_still_trains(settings: FinetuneSection) -> None:
    settings = settings.model_copy(update={"warmup": 0.99})
    assert 0 < learning_rate(0, 1, settings, Cosine()) < settings.lr
