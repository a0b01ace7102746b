"""Two networks side by side: the dense one and the one that is being re-solved, stopped at every weight in turn.

Each batch runs in a thread of its own for each network. All wait at the same operation, the dense network behind it and
the other one before it, until its weight has been dealt with. So one pass over the images is enough to solve layer
after layer, each on what the layers before it really deliver.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from queue import Queue
from typing import Any

import torch
from torch import nn

from compressor.structure.watch import Watch, WeightCall, evaluating

Mode = Callable[[], AbstractContextManager[Any]]


class _Runner:
    """One batch on its way through one network."""

    def __init__(
        self, model: nn.Module, batch: tuple[Any, ...], wanted: set[str], mode: Mode = nullcontext, *, before: bool
    ) -> None:
        self._model, self._batch, self._wanted, self._mode, self._before = model, batch, wanted, mode, before
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

    def stop(self) -> None:
        """End the thread wherever it is."""
        self._go.put(False)
        self._thread.join()


class _Stopped(Exception):
    pass


def in_step(
    dense: nn.Module,
    other: nn.Module,
    batches: Sequence[tuple[Any, ...]],
    weights: set[str],
    mode: Mode = nullcontext,
) -> Iterator[list[tuple[WeightCall, WeightCall]]]:
    """Run both networks over all batches, stopping at every operation with one of the named weights.

    Args:
        dense: The network that is looked at.
        other: The network that is re-solved.
        batches: Inputs.
        weights: Names of the weights to stop at.
        mode: Makes what the other network runs within.

    Yields:
        For every such operation, in the order of the data, the calls (dense, other) of every batch: of the dense
        network after the operation, of the other one before it, so that it goes on with what its weight is by then.
    """
    with evaluating(dense), evaluating(other):
        runners = [
            (_Runner(dense, b, weights, before=False), _Runner(other, b, weights, mode, before=True)) for b in batches
        ]
        try:
            while True:
                stops = ((left.step(), right.step()) for left, right in runners)
                calls = [(a, b) for a, b in stops if a is not None and b is not None]
                if not calls:
                    return
                yield calls
                del calls
        finally:
            for pair in runners:
                for runner in pair:
                    runner.stop()
