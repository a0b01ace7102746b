"""A highest learning rate that rises with the share of weights removed, along an S (SILO)."""

from __future__ import annotations

from compressor.training.schedules.base import Schedule

LOW, SPAN, STEEPNESS = 0.3 / 0.7, 0.4 / 0.7, 5.0
"""The rates published for ResNet-20 (0.03 at the bottom, 0.04 more at the top), relative to the highest."""
MILESTONES = (25 / 40, 32 / 40)


class SShaped(Schedule):
    """Falls to a tenth at five eighths of the steps, to a hundredth at four fifths."""

    name = "silo"

    def factor(self, step: int, steps: int) -> float:
        """The highest rate for this cut, reduced at the milestones."""
        pruned = min(max(self.cut.pruned, 1e-3), 1 - 1e-3)
        highest = LOW + SPAN / (1 + ((1 - pruned) / pruned) ** STEEPNESS)
        return float(highest * 0.1 ** sum(step / steps >= milestone for milestone in MILESTONES))
