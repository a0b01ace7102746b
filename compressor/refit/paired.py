"""Two networks side by side: the dense one and the one that is being re-solved, stopped at every weight in turn.

Each batch runs in a thread of its own for each network. All wait at the same operation, the dense network behind it and
the other one before it, until its weight has been dealt with. So one pass over the images is enough to solve layer
after layer, each on what the layers before it really deliver.

What waits holds its maps. Where those of all images would take too much memory, as many images begin as may wait at
the operation whose maps are largest; others begin when no such operation lies ahead any more, and catch up without a
stop. Early layers, whose maps are large, have many positions in each of a few images; deep ones get all images.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate, count
from queue import Queue
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from compressor.refit.footprint import Footprint, footprint_of
from compressor.structure.tracing.ops import Watch, WeightCall
from compressor.support.batches import Batch, cut, sizes_of, tensors_of
from compressor.support.modules import evaluating

Mode = Callable[[], AbstractContextManager[Any]]

HELD_BYTES = 2**30
"""Tensors of waiting images, at most."""
PARTS = 8
"""Where not all images can wait at a time, a pass over a batch takes this part of what may be held, at most."""
FEWEST = 8
"""Images that wait at every operation, whatever they take."""


class _Runner:
    """One batch on its way through one network; it stops first at the wanted operation of number `first`."""

    def __init__(
        self, model: nn.Module, batch: Batch, wanted: set[str], first: int, mode: Mode = nullcontext, *, before: bool
    ) -> None:
        self._model, self._wanted, self._mode, self._before = model, wanted, mode, before
        self._batch = tuple(tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, batch))
        self._left = first
        self._stops: Queue[WeightCall | BaseException | None] = Queue()
        self._go: Queue[bool] = Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if not self._go.get():
            return
        try:
            with torch.no_grad(), self._mode(), Watch(self._model, self._visit, before=self._before):
                self._model(*self._batch)
            self._stops.put(None)
        except BaseException as error:
            self._stops.put(error)

    def _visit(self, call: WeightCall) -> None:
        if call.weight not in self._wanted:
            return
        if self._left:
            self._left -= 1
            return
        self._stops.put(call)
        if not self._go.get():
            raise _Stopped

    def step(self) -> WeightCall | None:
        """Run to the next wanted operation; None when the network is through."""
        self._go.put(True)
        stop = self._stops.get()
        if isinstance(stop, BaseException):
            raise stop
        return stop

    def release(self) -> None:
        """Let go of inputs that the network, which still has them in hand, will not read again."""
        for tensor in tensors_of(self._batch):
            if tensor.is_floating_point():
                tensor.data = tensor.new_full((1,), torch.nan).expand(tensor.shape)

    def stop(self) -> None:
        """End the thread wherever it is."""
        self._go.put(False)
        self._thread.join()


class _Stopped(Exception):
    pass


class Calls(list[tuple[WeightCall, WeightCall]]):
    """The calls (dense, other) of one operation, of every batch that has begun.

    Attributes:
        images: Number of images in these batches.
    """

    images: int = 0


class Course:
    """Which batches have begun when two networks wait at an operation.

    Args:
        footprint: Of the dense network, with the operations to stop at.
        batches: All that are to begin.
        most: Bytes that those that wait may hold.

    Attributes:
        batches: Those given, or parts of them.
    """

    def __init__(self, footprint: Footprint, batches: Sequence[Batch], most: float) -> None:
        self.last_use = footprint.last_use
        self.batches = batches
        total, room = sum(sizes_of(batches)), _room(footprint, most)
        if room and room[0] < total:
            self.batches = cut(batches, int(most / PARTS / footprint.peak))
        ends = list(accumulate(sizes_of(self.batches)))
        self._images = [0, *ends]
        self._begun = [max(1, bisect_right(ends, max(FEWEST, images))) for images in room]

    def begun(self, stop: int) -> int:
        """How many batches have begun at the operation of that number; none where there is nothing to stop at."""
        return self._begun[min(stop, len(self._begun) - 1)] if self._begun else 0

    def images(self, stop: int) -> int:
        """How many images have begun at the operation of that number."""
        return self._images[self.begun(stop)]

    def step(self, stop: int, left: _Runner, right: _Runner) -> list[tuple[WeightCall, WeightCall]]:
        """Bring a batch to the next operation; the pair of calls there, or nothing where both networks are through."""
        a, b = left.step(), right.step()
        if stop > self.last_use:
            left.release()
            right.release()
        return [] if a is None or b is None else [(a, b)]


def held_by_both(footprint: Footprint) -> list[float]:
    """Bytes that an image holds in both networks at each operation: the dense one is behind it, the other before it."""
    inputs = [footprint.inputs * (stop <= footprint.last_use) for stop in range(len(footprint.held))]
    return [2 * held - out + own for held, out, own in zip(footprint.held, footprint.output, inputs, strict=True)]


def _room(footprint: Footprint, most: float) -> list[int]:
    """Images that may wait at each operation: as many as may wait there and at all that follow."""
    ahead = list(accumulate(reversed(held_by_both(footprint)), max))[::-1]
    return [int(most / max(1.0, held)) for held in ahead]


def in_step(
    dense: nn.Module,
    other: nn.Module,
    batches: Sequence[Batch],
    weights: set[str],
    mode: Mode = nullcontext,
    most: float = HELD_BYTES,
) -> Iterator[Calls]:
    """Run both networks over all batches, stopping at every operation with one of the named weights.

    Args:
        dense: The network that is looked at.
        other: The network that is re-solved.
        batches: Inputs.
        weights: Names of the weights to stop at.
        mode: Makes what the other network runs within.
        most: Bytes that all images that wait may hold; batches are cut into parts, and begin later, where all of them
            would hold more.

    Yields:
        For every such operation, in the order of the data, the calls (dense, other) of every batch that has begun: of
        the dense network after the operation, of the other one before it, so that it goes on with what its weight is by
        then.
    """
    if not batches:
        return
    course = Course(footprint_of(dense, batches[0], weights), batches, most)
    runners: list[tuple[_Runner, _Runner]] = []
    with evaluating(dense), evaluating(other):
        try:
            for stop in count():
                calls = Calls()
                for number in range(course.begun(stop)):
                    if number == len(runners):
                        batch = course.batches[number]
                        left = _Runner(dense, batch, weights, stop, before=False)
                        runners.append((left, _Runner(other, batch, weights, stop, mode, before=True)))
                        del left, batch
                    calls += course.step(stop, *runners[number])
                if not calls:
                    return
                calls.images = course.images(stop)
                yield calls
                del calls
        finally:
            for pair in runners:
                for runner in pair:
                    runner.stop()
