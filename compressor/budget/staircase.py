"""Latency as a function of widths that is not smooth: devices work in blocks, and some widths fall out of step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from compressor.budget.model import Array

RIDGE = 1e-5
"""Weight of the penalty, per sample, that keeps coefficients small where the samples do not tell them apart."""


@dataclass(frozen=True)
class Staircase:
    """What a device does with widths.

    Attributes:
        block: Widths are worked on in blocks of so many channels; one that is partly used costs about as much as a
            full one.
        align: Widths that are no multiple of this leave the fast path.
    """

    block: int
    align: int

    def features(self, lengths: Array, dense: Array) -> Array:
        """Terms of which the latency of some operators is a sum.

        Args:
            lengths: Lengths of the axes that they depend on, shape (choices, axes).
            dense: Lengths where nothing is cut, shape (axes,).

        Returns:
            Shape (choices, terms).
        """
        share, steps = lengths / dense, np.ceil(lengths / self.block) * self.block / dense
        astray, narrow = lengths % self.align != 0, lengths < self.block
        own = [share, steps, astray, astray * share, narrow, narrow * share]
        columns = [np.ones((len(lengths), 1)), *own]
        for a, b in combinations(range(lengths.shape[1]), 2):
            both = steps[:, a] * steps[:, b]
            terms = [share[:, a] * share[:, b], both, astray[:, a] * both, astray[:, b] * both]
            terms += [narrow[:, a] * steps[:, b], narrow[:, b] * steps[:, a]]
            columns.append(np.stack(terms, axis=1))
        return np.concatenate(columns, axis=1)


STAIRCASES = tuple(
    Staircase(block, align) for block in (1, 4, 8, 16, 32, 64) for align in (1, 2, 4, 8) if align <= block
)


def least_squares(features: Array, values: Array, weights: Array) -> Array:
    """The coefficients of a sum of features, kept small where the samples leave them open.

    Args:
        features: Shape (samples, terms).
        values: Shape (samples,).
        weights: How much the square of each sample's error counts, shape (samples,).
    """
    weighted = features * weights[:, None]
    penalty = RIDGE * weights.sum() * np.eye(features.shape[1])
    return np.asarray(np.linalg.solve(weighted.T @ features + penalty, weighted.T @ values))
