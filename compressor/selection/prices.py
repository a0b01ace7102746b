"""Prices that compare across groups: curves of imitation errors, scaled to the loss of the network at a few widths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from compressor.selection.base import Calibration, Ranking
from compressor.selection.fisher import divergences
from compressor.selection.moments import Moments
from compressor.selection.narrowed import narrowed
from compressor.structure.groups import ChannelGroup
from compressor.support.batches import Batch, part_of, size_of, sizes_of

SHARES = (0.75, 0.5, 0.25)
PART, FEWEST_IMAGES, MOST_IMAGES = 8, 32, 256
"""Prices are taken on one in `PART` of the images."""
CHANGE_BYTES = 2**29
"""Most memory for changes of weights that are priced in one pass over the images."""
FLOOR, WORST = 1e-9, 1e6


@dataclass(frozen=True)
class Cut:
    """One group at one width, and how that changes the tensors of its consumers, weights re-solved."""

    group: str
    width: int
    change: dict[str, Tensor]

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.change.values())


def price(calibration: Calibration, rankings: Mapping[str, Ranking], moments: dict[str, Moments]) -> dict[str, Ranking]:
    """Turn the errors of the rankings into the rise of the divergence from the dense network.

    Each group is cut to a few widths by itself, its consumers re-solved from the moments, and the rise estimated to
    second order (`fisher.divergences`): that takes a few passes over the images for all groups together. Between and
    beyond these widths, the logarithm of the price is linear in the logarithm of the error.
    """
    groups = calibration.groups
    images = held_out(calibration)
    points: dict[str, list[tuple[float, float]]] = {group.name: [] for group in groups}
    waiting: list[Cut] = []

    def settle() -> None:
        changes = [cut.change for cut in waiting]
        found = divergences(calibration.model, changes, images, seed=calibration.seed, task=calibration.task)
        for cut, value in zip(waiting, found, strict=True):
            points[cut.group].append((rankings[cut.group].error[cut.width], value))
        waiting.clear()

    for number, group in enumerate(groups):
        for cut in _cuts(calibration, group, rankings[group.name], moments):
            waiting.append(cut)
            if sum(w.bytes for w in waiting) > CHANGE_BYTES:
                settle()
        calibration.progress(len(groups) + number + 1, 2 * len(groups))
    if waiting:
        settle()
    return {name: Ranking(r.order, _curve(r.error, points[name])) for name, r in rankings.items()}


def held_out(calibration: Calibration) -> list[Batch]:
    """The images that prices are taken on."""
    total = sum(sizes_of(calibration.images))
    return _last(calibration.images, min(MOST_IMAGES, max(FEWEST_IMAGES, total // PART)))


def _last(images: Sequence[Batch], most: int) -> list[Batch]:
    """The last images, at most that many."""
    chosen: list[Batch] = []
    count = 0
    for batch in reversed(images):
        chosen.append(part_of(batch, 0, most - count))
        count += size_of(chosen[-1])
        if count >= most:
            break
    return chosen


def _cuts(
    calibration: Calibration, group: ChannelGroup, ranking: Ranking, moments: dict[str, Moments]
) -> Iterator[Cut]:
    model, groups = calibration.model, calibration.groups
    widths = _widths(group)
    changes = narrowed(model, groups, group, ranking.order, widths, moments)
    for width, change in zip(widths, changes, strict=True):
        yield Cut(group.name, width, change)


def _widths(group: ChannelGroup) -> list[int]:
    widths = {max(1, round(group.size * s / group.step)) * group.step for s in SHARES} | {group.fewest}
    return sorted(w for w in widths if w < group.size)


def _curve(errors: Sequence[float], points: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Interpolate log price over log error; the slope is kept within reason where a point says nothing."""
    prices_of = [(e, p if math.isfinite(p) else WORST) for e, p in points if e > 0]
    known = sorted((math.log(max(e, FLOOR)), math.log(min(max(p, FLOOR), WORST))) for e, p in prices_of)
    if not known:
        return tuple(errors)
    x, y = np.array([k[0] for k in known]), np.maximum.accumulate(np.array([k[1] for k in known]))
    logs = np.log(np.maximum(np.array(errors), FLOOR))
    prices = np.exp(np.interp(logs, x, y) + np.minimum(0, logs - x[0]) + np.maximum(0, logs - x[-1]))
    prices[np.array(errors) <= 0] = 0
    return tuple(float(p) for p in np.maximum.accumulate(prices[::-1])[::-1])
