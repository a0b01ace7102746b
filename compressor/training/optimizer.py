"""The optimiser of fine-tuning, and its learning rate at every step."""

from __future__ import annotations

import torch
from torch import nn

from compressor.recipe import FinetuneSection
from compressor.training.schedules.base import Schedule


def sgd(model: nn.Module, settings: FinetuneSection) -> torch.optim.SGD:
    """SGD with Nesterov momentum; weight decay only on tensors of two or more axes, so not on norms and biases."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings.rate, momentum=settings.momentum, nesterov=settings.momentum > 0)


def learning_rate(step: int, steps: int, settings: FinetuneSection, schedule: Schedule) -> float:
    """The learning rate of a step: a straight rise over the warm-up, then what the schedule says.

    Args:
        step: The step about to be taken, 0 to `steps - 1`, over all epochs.
        steps: Number of steps of all epochs.
        settings: Gives the highest rate and the share of the steps that are warm-up.
        schedule: The course after warm-up.
    """
    warmup = round(settings.warmup * steps)
    if step < warmup:
        return settings.rate * (step + 1) / (warmup + 1)
    return settings.rate * schedule.factor(step - warmup, steps - warmup)
