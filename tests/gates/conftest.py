"""A network that has learnt the digits, so that some of its units are worth more than others."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from compressor.budget.allocate import Budget
from compressor.budget.costs.macs import Macs
from compressor.data import Data, load_data
from compressor.gates.trainer import Learnt
from compressor.models.digits import digits_resnet
from compressor.recipe import DataSection, FinetuneSection
from compressor.structure import Groups, Plan, find_groups, shrink
from compressor.tasks import evaluate

SHAPE = (1, 16, 16)


@dataclass(frozen=True)
class Digits:
    model: nn.Module
    groups: Groups
    data: Data
    budget: Budget

    def accuracy(self, model: nn.Module) -> float:
        assert self.data.validation is not None
        return evaluate(model, self.data.validation).main

    def compact(self, learnt: Learnt) -> nn.Module:
        widths = self.budget.widths(self.groups, learnt.rankings)
        kept = {name: learnt.rankings[name].order[:width] for name, width in widths.items()}
        return shrink(learnt.model, Plan.of(self.groups, kept))


@pytest.fixture(scope="session")
def digits() -> Digits:
    """A residual network of 9 groups that knows 98 % of the digits; to be looked at only."""
    from compressor.training.loop import finetune

    data = load_data(DataSection.model_validate({"source": "digits", "batch_size": 64}), SHAPE, 0)
    torch.manual_seed(0)
    model = digits_resnet(width=8)
    training = FinetuneSection.model_validate({"epochs": 8, "lr": 0.05, "distill": False, "schedule": "cosine"})
    finetune(model, None, data.train or (), training)
    model.eval()
    groups = find_groups(model, torch.zeros(1, *SHAPE))
    return Digits(model, groups, data, Budget(Macs(model, groups), 0.5))
