"""What a learning-rate schedule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar


class Schedule(ABC):
    """The course of the learning rate after warm-up. One file of this package per schedule."""

    name: ClassVar[str]

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """Share of the recipe's learning rate to use.

        Args:
            step: The step about to be taken, 0 to `steps - 1`.
            steps: Number of steps after warm-up.

        Returns:
            A number from 0 to 1.
        """
