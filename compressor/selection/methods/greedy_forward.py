"""Greedy forward selection by the loss of the whole network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from compressor.errors import InputError
from compressor.selection.base import Calibration, Method, Ranking
from compressor.selection.gate_loss import CHUNK, Batch, GateLoss
from compressor.selection.moment_method import moments_of
from compressor.selection.prices import price
from compressor.selection.recording import Recording
from compressor.structure.groups import ChannelGroup
from compressor.support.batches import first, joined, sizes_of, take

LOSSES = ("divergence", "task", "cross_entropy")
CANDIDATES = ("all", "taylor", "random")
SORTINGS = 8
"""How often the images are put into a new order on the way to a full group, where all units are tried."""
TAYLOR_SHARE = 0.25
"""Share of the images, the most difficult ones, of which the gradient is taken, and on which its units compete."""


class GreedyForward(Method):
    """From an empty group, add the unit that lowers the loss of the network most, until the group is full.

    The loss is the divergence from the dense network, so that no labels are needed. All other groups stay whole: the
    widths of the groups before are not known when a group is ranked (the paper stops each group at a given loss, and
    ranks the next on what is left). Without `refit` the prices are the losses themselves.

    Args:
        repeat: A unit may be picked again, which raises its weight (as in the paper); needs `scale: N/n`. A group is
            ranked by at most twice as many picks as it has units; those never picked come last, in no special order.
        scale: `none` leaves the weights of the picked units as they are; `N/n` keeps the sum of the weights.
        loss: `divergence` from the dense network, or that of the `task`, which needs labels; `cross_entropy` is the
            name of the latter in classification, and means the same.
        candidates: Who is tried in a step: `all`, those to which the gradient points (`taylor`; they compete on the
            most difficult images, and the loss on all images is taken at a few widths), or some drawn at `random`.
        screen: How many are tried, unless all are.
        exact: All units are tried until so many are in.
        images: How many images the loss is taken on; the same in every step.
        refit: The prices are those of widths whose consumers are solved again, as `imitation` has them.
    """

    name = "greedy_forward"
    summary = "adds the unit that lowers the loss of the network most; label-free unless loss is cross_entropy"
    takes_moments = True
    paper = "Ye et al., Good Subnetworks Provably Exist, ICML 2020 (arXiv 2003.01794)"

    def __init__(
        self,
        repeat: bool = False,
        scale: str = "none",
        loss: str = "divergence",
        candidates: str = "all",
        screen: int = 5,
        exact: Annotated[int, Field(ge=0)] = 0,
        images: int = 128,
        refit: bool = True,
    ) -> None:
        _choose("scale", scale, ("none", "N/n"))
        _choose("loss", loss, LOSSES)
        _choose("candidates", candidates, CANDIDATES)
        if repeat and scale != "N/n":
            raise _wrong("repeat: true", "set scale: N/n, or repeat: false")
        if screen < 1 or images < CHUNK:
            raise _wrong(f"screen: {screen}, images: {images}", f"screen is at least 1, images at least {CHUNK}")
        self.repeat, self.scale, self.loss, self.candidates = repeat, scale, loss, candidates
        self.screen, self.exact, self.images, self.refit = screen, exact, images, refit

    def rank(self, calibration: Calibration) -> dict[str, Ranking]:
        groups, task = calibration.groups, calibration.task
        images, labels = _first(calibration, self.images)
        labelled = self.loss != "divergence"
        if labelled and labels is None:
            raise InputError(
                f"{self.loss} needs labels, and the data has none",
                where="compress.options",
                cure="use loss: divergence",
            )
        recording = Recording(calibration.model, groups.norms, tuple(t[:CHUNK] for t in images))
        with torch.no_grad():
            targets = labels if labelled else _dense(recording, images)
            rankings = {}
            for number, group in enumerate(groups):
                loss = GateLoss(recording, group, images, targets, task.losses if labelled else task.divergences)
                rankings[group.name] = self._rank_group(group, loss, calibration.seed)
                calibration.progress(number + 1, (1 + self.refit) * len(groups))
        return price(calibration, rankings, moments_of(calibration)) if self.refit else rankings

    def _rank_group(self, group: ChannelGroup, loss: GateLoss, seed: int) -> Ranking:
        size = group.size
        counts, order = torch.zeros(size), list[int]()
        reached = {size: loss.mean(torch.ones(size)), 0: loss.sort(counts)}
        generator = torch.Generator().manual_seed(seed)
        live = self._live(group, loss)
        for pick in range(2 * size if self.repeat else size):
            scale = 1.0 if self.scale == "none" else len(live) / (pick + 1)
            if self.candidates == "all" and pick and pick % max(1, size // SORTINGS) == 0:
                loss.sort(counts, len(live) / pick if self.scale == "N/n" else 1.0)
            left = live if self.repeat else _open(group, counts, live)
            units = self._candidates(left, counts, scale, loss, generator)
            on_part = self.candidates == "taylor" and pick >= self.exact and self.screen < len(live)
            if on_part:
                unit, mean = loss.best_on_part(counts, units, scale, TAYLOR_SHARE), math.inf
            else:
                unit, mean = loss.best(counts, units, scale)
            counts[unit] += 1
            if unit not in order:
                order.append(unit)
            if on_part and pick % max(1, size // SORTINGS) == 0:
                mean = loss.mean(scale * counts)
            reached[len(order)] = min(mean, reached.get(len(order), math.inf))
            if len(order) == len(live):
                break
        rest = [unit for unit in range(size) if unit not in order]
        return Ranking(group.balanced([*order, *rest]), _prices(reached, size))

    def _live(self, group: ChannelGroup, loss: GateLoss) -> list[int]:
        """The units to pick from. Where weights are scaled, dead units would serve to make the others weigh less."""
        every = list(range(group.size))
        if self.scale == "none" or group.blocks:
            return every
        gradient = loss.gradient(torch.full((group.size,), 0.5), 1.0)
        return [unit for unit in every if gradient[unit]] or every

    def _candidates(
        self, units: list[int], counts: Tensor, scale: float, loss: GateLoss, generator: torch.Generator
    ) -> list[int]:
        if self.candidates == "all" or len(units) <= self.screen or counts.sum() < self.exact:
            return units
        if self.candidates == "random":
            return [units[i] for i in torch.randperm(len(units), generator=generator)[: self.screen].tolist()]
        gradient = loss.gradient(counts * scale, TAYLOR_SHARE)
        return sorted(units, key=lambda unit: float(gradient[unit]))[: self.screen]


def _open(group: ChannelGroup, counts: Tensor, live: list[int]) -> list[int]:
    """The live units that are not in; of those in blocks, only such as keep the blocks even."""
    taken = counts.tolist()
    if not group.blocks:
        return [unit for unit in live if not taken[unit]]
    fill = [sum(taken[unit] > 0 for unit in block) for block in group.blocks]
    behind = (block for block, number in zip(group.blocks, fill, strict=True) if number == min(fill))
    return sorted(unit for block in behind for unit in block if not taken[unit])


def _prices(reached: dict[int, float], size: int) -> tuple[float, ...]:
    """KLIncrease of the loss over the dense network for every width; widths that were not reached lie on a line."""
    known = sorted(width for width, loss in reached.items() if math.isfinite(loss))
    losses = np.interp(np.arange(size + 1), known, [reached[width] for width in known]) - reached[size]
    return tuple(float(p) for p in np.maximum.accumulate(np.maximum(losses, 0)[::-1])[::-1])


def _first(calibration: Calibration, wanted: int) -> tuple[Batch, Any]:
    """The first images and their targets, in whole chunks."""
    columns = zip(*first(calibration.images, wanted), strict=True)
    images = tuple(torch.cat(column) for column in columns)
    count = len(images[0]) // CHUNK * CHUNK
    if not count:
        raise InputError(
            f"{len(images[0])} calibration images are too few",
            where="compress.calibration.images",
            cure=f"give at least {CHUNK}",
        )
    return tuple(t[:count] for t in images), None if calibration.labels is None else _targets(calibration, count)


def _targets(calibration: Calibration, count: int) -> Any:
    """Those of the first images."""
    assert calibration.labels is not None
    found, sizes = list[Any](), sizes_of(calibration.images)
    while sum(sizes[: len(found)]) < count:
        found.append(calibration.labels[len(found)])
    return take(joined(found), slice(count), sum(sizes[: len(found)]))


def _dense(recording: Recording, images: Batch) -> Any:
    """The outputs of the dense network."""
    parts = [recording.dense(batch) for batch in zip(*(t.split(CHUNK) for t in images), strict=True)]
    return recording.restored([torch.cat(output) for output in zip(*parts, strict=True)])


def _choose(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise _wrong(f"{name}: {value}", f"choose one of: {', '.join(known)}")


def _wrong(problem: str, cure: str) -> InputError:
    return InputError(f"'{problem}' cannot be", where="compress.options", cure=cure)
