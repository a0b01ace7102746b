"""Latency as a function of widths that is not smooth: devices work in blocks, and some widths fall out of step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from compressor.budget.costs.base import Array

RIDGE = 1e-5
"""Weight of the penalty, per sample, that keeps coefficients small where the samples do not tell them apart."""


BLOCKS_PER_PASS = 4
"""Blocks of outputs that are computed in one pass over the inputs; one more block means one more pass."""


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

    def aligned(self) -> list[Staircase]:
        """Staircases with the same blocks and other alignments."""
        return [Staircase(self.block, align) for align in (1, 2, 4, 8) if align <= max(4, self.block)]

    def features(self, lengths: Array, dense: Array) -> Array:
        """Terms of which the latency of some operators is a sum.

        Networks that leave the fast path somewhere in these operators have terms of their own: they run other code.

        Args:
            lengths: Lengths of the axes that they depend on, shape (choices, axes).
            dense: Lengths where nothing is cut, shape (axes,).

        Returns:
            Shape (choices, terms).
        """
        share, astray = lengths / dense, (lengths % self.align != 0) & (lengths != dense)
        steps, passes = (np.ceil(lengths / size) * size / dense for size in (self.block, BLOCKS_PER_PASS * self.block))
        narrow, off = lengths < self.block, astray.any(axis=1)[:, None]
        fast, slow = [np.ones((len(lengths), 1)), share, steps, passes, narrow, narrow * share], [share, astray * share]
        for a, b in combinations(range(lengths.shape[1]), 2):
            both = [share[:, a] * share[:, b], steps[:, a] * steps[:, b]]
            both += [passes[:, a] * share[:, b], share[:, a] * passes[:, b]]
            both += [narrow[:, a] * steps[:, b], narrow[:, b] * steps[:, a]]
            fast.append(np.stack(both, axis=1))
            slow.append((share[:, a] * share[:, b])[:, None])
        return np.concatenate([*(~off * term for term in fast), off, *(off * term for term in slow)], axis=1)


BLOCKS = tuple(Staircase(block, min(4, block)) for block in (1, 4, 8, 16, 32, 64))


def least_squares(features: Array, values: Array, weights: Array) -> Array:
    """The coefficients of a sum of features, kept small where the samples leave them open.

    Args:
        features: Shape (samples, terms).
        values: Shape (samples,).
        weights: How much the square of each sample's error counts, shape (samples,).
    """
    weighted = features * weights[:, None]
    return np.asarray(np.linalg.solve(_penalised(features, weighted, weights), weighted.T @ values))


def left_out(features: Array, values: Array, weights: Array) -> Array:
    """For every sample, what `least_squares` predicts where this sample is left out; never below 0.

    In closed form, from the leverage of every sample.
    """
    weighted = features * weights[:, None]
    solved = np.linalg.solve(_penalised(features, weighted, weights), np.c_[weighted.T @ values, weighted.T])
    leverage = np.minimum(np.einsum("st,ts->s", features, solved[:, 1:]), 1 - 1e-6)
    return np.maximum(0.0, values - (values - features @ solved[:, 0]) / (1 - leverage))


def _penalised(features: Array, weighted: Array, weights: Array) -> Array:
    return np.asarray(weighted.T @ features + RIDGE * weights.sum() * np.eye(features.shape[1]))
