"""Straight down from the full learning rate to zero (LLR; Zimmer, Spiegel & Pokutta, ICLR 2023)."""

from __future__ import annotations

from compressor.training.schedules.base import Schedule


class Linear(Schedule):
    """Starts at the full learning rate and would reach zero one step after the last."""

    name = "llr"

    def factor(self, step: int, steps: int) -> float:
        """A straight line over the steps."""
        return 1.0 - step / steps
