"""Milliseconds on a measured device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from compressor.budget.costs.axes import Axis
from compressor.budget.costs.base import Array, CostModel, Widths
from compressor.budget.costs.products import Products
from compressor.budget.latency.segments import Segments
from compressor.budget.latency.skeleton import Skeleton
from compressor.budget.latency.staircase import BLOCKS, Staircase, least_squares, left_out
from compressor.budget.latency.weight_cache import BOUNDLESS, CACHES, Cache
from compressor.structure.groups import Groups
from exporters.latency_table import LatencyTable

CLEANINGS, FAR_OFF = 3, 5.0
"""How often networks are left out that lie further off than this many times the median error."""
PLAIN = Staircase(8, 4)
"""The staircase to begin the search with."""


class Latency(CostModel):
    """The sum over segments (a layer and what follows it) of a staircase in the widths that it depends on.

    The coefficients of every segment come from the measured networks of a table, by least squares. A group that
    vanishes takes with it the layers that only read or only make its channels. Where the weights of all layers together
    are more than the caches hold, each layer takes longer in proportion to its weights that have to be fetched.

    Args:
        table: What was measured.
        skeleton: The network as a function of its widths.
        groups: Its channel groups.
    """

    name = "latency"

    def __init__(self, table: LatencyTable, skeleton: Skeleton, groups: Groups) -> None:
        self.table, self._sizes = table, {group.name: group.size for group in groups}
        self._segments = segments = Segments(skeleton)
        self._lengths = [_lengths(segment.axes, table.widths) for segment in segments.items]
        self._dense = [_lengths(segment.axes, [{}])[0] for segment in segments.items]
        self._regular = np.array([self._is_regular(choice) for choice in table.widths])
        self._weights = Products(segments.bytes, segments.cuts, self._sizes)
        self._reader = [segments.readers[name] for name in segments.bytes]
        self._kept = np.array([self._weights.each(choice) for choice in table.widths])
        self._values = self._without_overhead()
        self._totals = self._values.sum(axis=1)
        self.staircase, self.cache = self._device()
        self._terms, fetching = self._fitted(self.staircase, self.cache)
        self._fetching = Products(dict(zip(segments.bytes, fetching.tolist(), strict=True)), segments.cuts, self._sizes)
        self._touched = {name: self._reading(name) for name in self._sizes}

    def total(self, widths: Widths) -> float:
        """Milliseconds of a call."""
        return float(self._by_segment(widths).sum()) / 1e3

    def by_layer(self, widths: Widths) -> dict[str, float]:
        """Milliseconds of every layer with what follows it, by the layer's name."""
        times: dict[str, float] = defaultdict(float)
        for segment, us in zip(self._segments.items, self._by_segment(widths).tolist(), strict=True):
            times[segment.name] += us / 1e3
        return {name: ms for name, ms in times.items() if name}

    def changes(self, widths: Widths, group: str, candidates: Sequence[int] | NDArray[np.int64]) -> Array:
        chosen = np.array([widths.get(group, self._sizes[group]), *candidates], float)
        change = self._fetched(widths, group, chosen)
        change = change[1:] - change[0]
        for number in self._touched[group]:
            term = self._terms[number]
            slopes = np.array([axis.slope(group) for axis in term.axes])
            lengths = _lengths(term.axes, [widths]) + np.outer(chosen - chosen[0], slopes)
            gone = term.is_gone({**widths, group: 1}) | ((chosen == 0) & (group in term.alone))
            times = np.where(gone, 0.0, term.time(lengths))
            change += times[1:] - times[0]
        return change / 1e3

    @cached_property
    def error(self) -> float:
        """Nine of ten measured networks are predicted better than by this share by a fit to all the others.

        Networks with widths that no plan takes, because they leave the fast path of the device, do not count.
        """
        return self._error(self.staircase, self.cache)

    def _is_regular(self, widths: Widths) -> bool:
        """Whether plans may have such widths: the dense ones, and multiples of what most devices want."""
        return all(w == self._sizes[name] or w % PLAIN.align == 0 or w < PLAIN.align for name, w in widths.items())

    def _by_segment(self, widths: Widths) -> Array:
        """Microseconds of every segment."""
        times = np.array(
            [0.0 if t.is_gone(widths) else t.time(_lengths(t.axes, [widths]))[0] for t in self._terms], dtype=float
        )
        fetching = self._fetching.each(widths) * self.cache.missing(self._weights.total(widths))
        np.add.at(times, self._reader, fetching)
        return times

    def _fetched(self, widths: Widths, group: str, candidates: Array) -> Array:
        """Microseconds that fetching weights takes at other widths of a group."""
        rows = candidates.astype(int)
        time = self._fetching.total(widths) + self._fetching.changes(widths, group, rows)
        size = self._weights.total(widths) + self._weights.changes(widths, group, rows)
        return np.asarray(time * self.cache.missing(size))

    @cached_property
    def _importance(self) -> Array:
        """Errors count in relation to the whole network's time; those of the dense one are in every speed-up."""
        importance = (self._totals.min() / self._totals) ** 2
        importance[0] = 1.0
        return importance

    def _without_overhead(self) -> Array:
        """Microseconds of every segment in every network, as they are without the profiler.

        It adds some time to each operator. What other processes cost shows in whole calls, in proportion to their
        length, and hardly in the shorter runs of a single operator.
        """
        found = [self._segments.times(measured) for measured in self.table.measured]
        times, counts = np.array([t for t, _ in found]), np.array([c for _, c in found])
        both = np.stack([times.sum(axis=1), counts.sum(axis=1)], axis=1)
        factor, surplus = _line(both, np.array([measured.total for measured in self.table.measured]))
        return np.asarray(factor * times + surplus * counts)

    def _device(self) -> tuple[Staircase, Cache]:
        """What predicts best the networks that are left out of the fit."""
        first = min((PLAIN, *BLOCKS), key=lambda staircase: self._error(staircase, BOUNDLESS))
        within = [cache for cache in CACHES if cache.held < self._weights.dense]
        cache = min([BOUNDLESS, *within], key=lambda cache: self._error(first, cache))
        return min(
            (first, *first.aligned()), key=lambda staircase: self._error(staircase, cache, everywhere=True)
        ), cache

    def _fitted(self, staircase: Staircase, cache: Cache) -> tuple[list[_Term], Array]:
        """The terms of all segments, and microseconds for the whole of every weight to be fetched."""
        terms, fetching = [], np.zeros(len(self._segments.bytes))
        for number, segment in enumerate(self._segments.items):
            features, own = self._features(staircase, cache, number)
            coefficients = least_squares(features, self._values[:, number], self._importance)
            split = len(coefficients) - len(own)
            alone = tuple(axis.owned[0][0] for axis in segment.weight if not axis.free and len(axis.owned) == 1)
            terms.append(_Term(staircase, segment.axes, self._dense[number], coefficients[:split], alone))
            fetching[own] = np.maximum(0.0, coefficients[split:])
        return terms, fetching

    def _features(self, staircase: Staircase, cache: Cache, number: int) -> tuple[Array, list[int]]:
        """Terms of a segment in all measured networks, those of its weights last, and the numbers of these weights."""
        own = [n for n, reader in enumerate(self._reader) if reader == number]
        steps = staircase.features(self._lengths[number], self._dense[number])
        return np.concatenate([steps, self._missed(cache)[:, own]], axis=1), own

    def _missed(self, cache: Cache) -> Array:
        """Share of every dense weight that is fetched in measured networks, shape (networks, weights)."""
        return np.asarray(self._kept / self._weights.each({}) * cache.missing(self._kept.sum(axis=1))[:, None])

    def _error(self, staircase: Staircase, cache: Cache, *, everywhere: bool = False) -> float:
        """Of networks that are left out of the fit: those with widths that plans have, or all of them."""
        predicted = np.zeros(len(self._totals))
        for number in range(len(self._segments.items)):
            features, _ = self._features(staircase, cache, number)
            predicted += left_out(features, self._values[:, number], self._importance)
        among = slice(None) if everywhere else self._regular
        return float(np.percentile(np.abs(predicted / self._totals - 1)[among], 90))

    def _reading(self, group: str) -> list[int]:
        return [n for n, term in enumerate(self._terms) if any(group == name for a in term.axes for name, _ in a.owned)]


@dataclass(frozen=True)
class _Term:
    """The latency of one segment."""

    staircase: Staircase
    axes: tuple[Axis, ...]
    dense: Array
    coefficients: Array
    alone: tuple[str, ...]

    def time(self, lengths: Array) -> Array:
        """Microseconds at lengths of the shape (choices, axes).

        Where nothing is left of the layer that follows, it is another one that does, of which the fit knows nothing;
        an uncut one is the best guess.
        """
        lengths = np.where(lengths == 0, self.dense, lengths)
        return np.asarray(np.maximum(0.0, self.staircase.features(lengths, self.dense) @ self.coefficients))

    def is_gone(self, widths: Widths) -> bool:
        """Whether the layer takes no time at all, because the only group of one of its sides has vanished."""
        return any(widths.get(name) == 0 for name in self.alone)


def _lengths(axes: Sequence[Axis], widths: Sequence[Mapping[str, int]]) -> Array:
    """Shape (choices, axes)."""
    return np.array([[axis.length(choice) for axis in axes] for choice in widths]).reshape(len(widths), len(axes))


def _line(columns: Array, values: Array) -> Array:
    """The coefficients of two columns, the second at most 0; samples far off the others do not count."""
    kept = np.full(len(values), True)
    for _ in range(CLEANINGS):
        found = np.linalg.lstsq(columns[kept], values[kept])[0]
        if found[1] > 0:
            found = np.append(np.linalg.lstsq(columns[kept, :1], values[kept])[0], 0.0)
        wrong = np.abs(columns @ found / values - 1)
        kept = wrong <= FAR_OFF * max(float(np.median(wrong)), 1e-3)
    return np.asarray(found)
