"""Half a cosine from the full learning rate to nearly zero (Loshchilov & Hutter, ICLR 2017, without restarts)."""

from __future__ import annotations

import math

from compressor.training.schedules.base import Schedule


class Cosine(Schedule):
    """Starts at the full learning rate and would reach zero one step after the last."""

    name = "cosine"

    def factor(self, step: int, steps: int) -> float:
        """Half a cosine over the steps."""
        return 0.5 * (1.0 + math.cos(math.pi * step / steps))
