"""The loss of a network as a function of the gates of one group, and the setting of the gates with the lowest loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compressor.selection.recording import Gated, Recording
from compressor.structure.groups import ChannelGroup
from compressor.support.batches import take
from compressor.support.footprint import PASS_BYTES

CHUNK = 16
STACK = 256
"""Images, counted over all settings of the gates, that are run at a time."""
SPREADS_BYTES = 2**30
"""Most memory for what single units contribute to the outputs of one operation, on all images."""
SLACK, ROUNDING = 1e-5, 1e-2

PerImage = Callable[[Any, Any], Tensor]
Batch = tuple[Tensor, ...]


class GateLoss:
    """Sums a loss over images that lie in chunks, the most difficult images first.

    Args:
        recording: The network.
        group: The group that has the gates.
        images: Images; a multiple of `CHUNK` of them.
        targets: What `loss` compares the outputs with, image by image, in any nesting.
        loss: Maps outputs, as the network returns them, and targets to one number per image that is never negative.
    """

    def __init__(
        self,
        recording: Recording,
        group: ChannelGroup,
        images: Batch,
        targets: Any,
        loss: PerImage,
    ) -> None:
        self._recording, self._group, self._images, self._targets, self._loss = recording, group, images, targets, loss
        self.count = len(images[0])
        self._arrange(torch.arange(self.count))

    def sort(self, counts: Tensor, scale: float = 1.0) -> float:
        """Put the images first on which the loss is highest with gates `scale * counts`; return the mean loss."""
        losses = self._each(counts, scale)
        self._arrange(self._order[losses.argsort(descending=True)])
        return float(losses.mean())

    def mean(self, gate: Tensor) -> float:
        """Mean loss."""
        return float(self._each(gate, 1.0).mean())

    def best(self, counts: Tensor, units: Sequence[int], scale: float) -> tuple[int, float]:
        """The unit that lowers the loss most when it is counted once more.

        The sum over a part of the images is a lower bound for the sum over all: a unit is given up as soon as that
        exceeds the whole sum of another one. So the result is that of trying all units on all images. The unit that is
        best on the most difficult images gives the bound.

        Args:
            counts: How often each unit is in.
            units: The units to try.
            scale: What a gate is for each count.

        Returns:
            The best unit, and the mean loss with it.
        """
        later = range(1, len(self._chunks))
        sums = dict(zip(units, self._sums(0, counts, units, scale), strict=True))
        first = min(units, key=sums.__getitem__)
        sums[first] += sum(self._sums(chunk, counts, [first], scale)[0] for chunk in later)
        bound = sums[first] + SLACK * (sums[first] + ROUNDING * self.count)
        alive = [unit for unit in units if unit != first and sums[unit] <= bound]
        for chunk in later:
            if not alive:
                break
            for unit, loss in zip(alive, self._sums(chunk, counts, alive, scale), strict=True):
                sums[unit] += loss
            alive = [unit for unit in alive if sums[unit] <= bound]
        best = min(sorted([*alive, first]), key=sums.__getitem__)
        return best, sums[best] / self.count

    def best_on_part(self, counts: Tensor, units: Sequence[int], scale: float, share: float) -> int:
        """The unit that lowers the loss most on the first share of the images when it is counted once more."""
        part = range(math.ceil(share * len(self._chunks)))
        sums = [sum(losses) for losses in zip(*(self._sums(c, counts, units, scale) for c in part), strict=True)]
        return min(zip(sums, units, strict=True))[1]

    def gradient(self, gate: Tensor, share: float) -> Tensor:
        """Derivative by the gates of the sum of the losses over the first share of the images."""
        total = torch.zeros_like(gate)
        for gated, targets in self._chunks[: math.ceil(share * len(self._chunks))]:
            total += torch.func.grad(partial(self._sum, gated, targets))(gate)
        return total

    def _sum(self, gated: Gated, targets: Any, gate: Tensor) -> Tensor:
        return self._of(gated.run(gate), targets).sum()

    def _of(self, outputs: Sequence[Tensor], targets: Any) -> Tensor:
        return self._loss(self._recording.restored(outputs), targets)

    def _arrange(self, order: Tensor) -> None:
        self._order = order
        self._chunks: list[tuple[Gated, Any]] = []
        for index in order.split(CHUNK):
            batch = tuple(t[index] for t in self._images)
            gated = self._recording.gated(self._group, batch, SPREADS_BYTES * CHUNK // self.count)
            self._chunks.append((gated, take(self._targets, index, self.count)))

    def _each(self, counts: Tensor, scale: float) -> Tensor:
        """Loss on every image, in their present order."""
        gate = scale * counts
        return torch.cat([self._of(gated.run(gate), targets) for gated, targets in self._chunks]).double()

    def _sums(self, chunk: int, counts: Tensor, units: Sequence[int], scale: float) -> list[float]:
        """Sum of the losses on the images of a chunk, for each unit."""
        gated, targets = self._chunks[chunk]
        most = min(STACK // CHUNK, PASS_BYTES // max(1, self._recording.peak))
        stacks = torch.tensor(units).split(max(1, most))
        losses = [gated.map(lambda out: self._of(out, targets), counts, some, scale) for some in stacks]
        return torch.cat(losses).sum(1, dtype=torch.float64).tolist()
