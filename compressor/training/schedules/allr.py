"""Straight down from a learning rate that fits the damage (ALLR; Zimmer, Spiegel & Pokutta, ICLR 2023)."""

from __future__ import annotations

import math

from compressor.training.schedules.base import Schedule

LEAST = 1e-3


class Adaptive(Schedule):
    """A line to zero that begins lower where little was removed and little time is given.

    It begins at the larger of two shares of the full learning rate: the norm that was removed, relative to the square
    root of the share of weights that was removed; and this training's epochs by those of the original one.
    """

    name = "allr"

    def factor(self, step: int, steps: int) -> float:
        """A straight line over the steps, from the adapted start."""
        damage = self.cut.damage / math.sqrt(self.cut.pruned) if self.cut.pruned else 0.0
        return min(1.0, max(damage, self.cut.budget, LEAST)) * (1.0 - step / steps)
