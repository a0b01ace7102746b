"""Weights that do not fit into the caches of a device come from memory at every call."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compressor.budget.costs.base import Array


@dataclass(frozen=True)
class Cache:
    """What a device keeps of a network's weights from one call to the next.

    Attributes:
        held: Bytes that stay.
    """

    held: float

    def missing(self, weights: Array | float) -> Array:
        """The share of so many bytes of weights that has to be fetched, were all replaced equally often."""
        return np.maximum(0.0, 1 - self.held / np.maximum(weights, 1.0))


BOUNDLESS = Cache(float("inf"))
CACHES = tuple(Cache(2.0**step) for step in range(18, 31))
"""From 256 kB to 1 GB."""
