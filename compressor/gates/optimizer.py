"""Chains several optimisers behind one interface."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from compressor.gates.budget import Lagrangian
from compressor.gates.course import Course
from compressor.recipe import FinetuneSection
from compressor.training.optimizer import sgd

TRAVEL = 30.0
"""How far a logit could move while gates learn, if it moved one way all the time."""


class Together(Optimizer):
    """Steps all optimisers. Learning rates that are set from outside count for the first one only.

    Args:
        first: The optimiser whose learning rate follows a schedule.
        others: The ones that keep theirs.
    """

    def __init__(self, first: Optimizer, *others: Optimizer) -> None:
        self.first, self.others = first, others
        self.rates = [[group["lr"] for group in other.param_groups] for other in others]
        super().__init__([{"params": group["params"]} for o in (first, *others) for group in o.param_groups], {})
        self._share()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do a step of each."""
        for other, rates in zip(self.others, self.rates, strict=True):
            for group, rate in zip(other.param_groups, rates, strict=True):
                group["lr"] = rate
        for optimizer in (self.first, *self.others):
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of all, one after the other."""
        return {"optimizers": [optimizer.state_dict() for optimizer in (self.first, *self.others)]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        for optimizer, state in zip((self.first, *self.others), state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self._share()

    def _share(self) -> None:
        """Whoever sets a learning rate here sets it there."""
        self.param_groups = [group for o in (self.first, *self.others) for group in o.param_groups]


def optimizer_of(course: Course, settings: FinetuneSection) -> Together:
    """SGD for the weights, Adam without decay for the gates, ascent for the multiplier."""
    steps = max(1, course.phases.learning // settings.accumulate)
    others: list[Optimizer] = []
    if learnt := [p for p in course.gate.parameters() if p.requires_grad]:
        others.append(torch.optim.Adam(learnt, lr=TRAVEL / steps))
    if isinstance(course.price, Lagrangian):
        others.append(torch.optim.SGD(course.price.parameters(), lr=course.price.rate, maximize=True))
    return Together(sgd(course.gated, settings), *others)
