"""What a learning-rate schedule is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import nn


@dataclass(frozen=True)
class Cut:
    """What was done to the network that is trained, as far as a schedule may depend on it.

    Attributes:
        pruned: Share of the weights that were removed, 0 to 1.
        damage: Norm of what was removed, relative to that of all weights, 0 to 1.
        budget: Epochs of this training, relative to those of the one that made the network, at most 1.
    """

    pruned: float = 0.0
    damage: float = 0.0
    budget: float = 1.0

    @classmethod
    def between(cls, dense: nn.Module | None, compact: nn.Module, epochs: int, original_epochs: int) -> Cut:
        """Compare a network with the one that it was cut from; None where nothing was cut."""
        budget = min(1.0, epochs / original_epochs)
        if dense is None:
            return cls(budget=budget)
        (before, whole), (after, left) = _size(dense), _size(compact)
        return cls(max(0.0, 1 - after / before), math.sqrt(max(0.0, 1 - left / whole)), budget)


def _size(model: nn.Module) -> tuple[int, float]:
    """Number of weights, and their squared norm."""
    weights = [p.detach() for p in model.parameters() if p.ndim > 1]
    return sum(w.numel() for w in weights), sum(float(w.double().square().sum()) for w in weights)


@dataclass(frozen=True)
class Schedule(ABC):
    """The course of the learning rate after warm-up. One file of this package per schedule.

    Attributes:
        cut: What was done to the network.
    """

    name: ClassVar[str]
    cut: Cut = Cut()

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """Share of the recipe's learning rate to use.

        Args:
            step: The step about to be taken, 0 to `steps - 1`.
            steps: Number of steps after warm-up.

        Returns:
            A number from 0 to 1.
        """
