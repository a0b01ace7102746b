"""The same learning rate throughout."""

from __future__ import annotations

from compressor.training.schedules.base import Schedule


class Constant(Schedule):
    """Every step uses the full learning rate."""

    name = "constant"

    def factor(self, step: int, steps: int) -> float:
        """Always 1."""
        return 1.0
