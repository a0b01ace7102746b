"""The smallest network whose loss rises no more than a target says: the divergence from the dense one, measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from compressor.budget.allocate import allocate
from compressor.budget.costs.base import CostModel
from compressor.refit import refit
from compressor.selection.base import Ranking
from compressor.structure import Plan, masked
from compressor.structure.groups import Groups
from compressor.support.batches import Batch, Parts, sizes_of
from compressor.support.footprint import fitting
from compressor.support.modules import evaluating
from compressor.tasks import DEFAULT, Task

HELD_OUT = 0.25
CLOSE, NARROW = 0.01, 1e-3
TRIALS = 10
Images = Sequence[Batch]


@dataclass(frozen=True)
class LossSearchResult:
    """Widths within a target, the share of the cost that they keep, and the rise of the loss that was measured."""

    widths: dict[str, int]
    share: float
    rise: float


def smallest_within(
    limit: float,
    groups: Groups,
    rankings: Mapping[str, Ranking],
    cost: CostModel,
    measure: Callable[[dict[str, int]], float],
    *,
    multiple_of: int = 1,
    smallest: float = 0.0,
) -> LossSearchResult:
    """Search the share of the cost to keep at which the measured rise meets the limit, from below within 1 %.

    The next share lies where the logarithm of the rise, linear between the two ends, meets that of the limit, but not
    close to either end. Widths are whole numbers, so a small network may have none that come within 1 %.

    Args:
        limit: Most rise of the loss.
        groups: The groups to choose widths for.
        rankings: The price curve of every group, by its name.
        cost: What is to be small.
        measure: The rise of the loss of the network with given widths.
        multiple_of: Widths are multiples of this.
        smallest: Share of the cost that the narrowest widths keep.
    """
    best = LossSearchResult({group.name: group.size for group in groups}, 1.0, 0.0)
    low, below = smallest, math.inf
    for _ in range(TRIALS):
        if best.rise >= (1 - CLOSE) * limit or best.share - low < NARROW:
            break
        share = _between(low, below, best.share, best.rise, limit)
        widths = allocate(groups, rankings, cost, share, multiple_of=multiple_of)
        rise = measure(widths)
        if rise <= limit:
            best = LossSearchResult(widths, share, rise)
        else:
            low, below = share, rise
    return best


def _between(low: float, below: float, high: float, above: float, limit: float) -> float:
    part = 0.5
    if math.isfinite(below) and above > 0:
        part = min(0.9, max(0.1, math.log(below / limit) / math.log(below / above)))
    return low + part * (high - low)


class KLIncrease:
    """Measures what widths do to the loss: on images that the refit has not seen.

    Args:
        model: The dense network.
        groups: Its groups.
        rankings: The order of the units of every group.
        images: Batches of calibration inputs; the last quarter of the images is held out.
        mixing: As in `refit`; None leaves the weights as they are.
        seed: Of the refit.
        task: What the network is for.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Groups,
        rankings: Mapping[str, Ranking],
        images: Images,
        *,
        mixing: float | None,
        seed: int,
        task: Task = DEFAULT,
    ) -> None:
        self._task = task
        self._model, self._groups, self._rankings, self._mixing, self._seed = model, groups, rankings, mixing, seed
        self._seen, held = _split(images)
        self._held = fitting(model, held)
        with evaluating(model):
            self._dense = [model(*batch) for batch in self._held]

    def __call__(self, widths: Mapping[str, int]) -> float:
        """Mean divergence from the dense network on the held-out images."""
        plan = Plan.from_rankings(self._groups, self._rankings, widths)
        if self._mixing is None:
            with masked(self._model, plan) as model:
                return self._divergence(model)
        fitted, _ = refit(self._model, plan, self._seen, groups=self._groups, mixing=self._mixing, seed=self._seed)
        return self._divergence(fitted)

    def _divergence(self, model: nn.Module) -> float:
        with evaluating(model):
            pairs = zip(self._held, self._dense, strict=True)
            losses = [self._task.divergences(model(*batch), dense) for batch, dense in pairs]
        return float(torch.cat(losses).double().mean())


def _split(images: Images) -> tuple[Images, Images]:
    """All but the last quarter of the images, and that quarter."""
    sizes = sizes_of(images)
    left = sum(sizes) - max(1, int(sum(sizes) * HELD_OUT))
    seen, held = list[tuple[int, int, int]](), list[tuple[int, int, int]]()
    for number, size in enumerate(sizes):
        border = min(size, max(0, left))
        left -= border
        if border:
            seen.append((number, 0, border))
        if border < size:
            held.append((number, border, size))
    return Parts(images, seen), Parts(images, held)
