"""Marked passes over a recorded network: in each, the channels whose label has one bit set, or unset, are marked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.memory import trim
from compressor.structure.couplings import Bools, Ints
from compressor.structure.marks import Recorder, Replay, Source, sees_output, tracking
from compressor.structure.watch import TensorNames

PASSES_PER_TRIM = 8
"""After so many passes freed memory is given back: what they leave behind lies in pieces between what stays."""


class OutOfTime(Exception):
    """The search has used up its time."""


class Clock:
    """A limit on the processor's time, and three times that on time by the clock."""

    def __init__(self, seconds: float) -> None:
        self._end, self._wall = time.process_time() + seconds, time.monotonic() + 3 * seconds

    def check(self) -> None:
        """Raise OutOfTime when a limit is reached."""
        if time.process_time() > self._end or time.monotonic() > self._wall:
            raise OutOfTime


class Passes:
    """Runs marked passes over a recorded network, within a time limit."""

    def __init__(
        self, model: nn.Module, inputs: tuple[Any, ...], names: TensorNames, clock: Clock, main: bool = True
    ) -> None:
        self.model, self.inputs, self.names = model, inputs, names
        model(*inputs)  # what a network caches in its first run is there in all that follow
        self.clock, self.main = clock, main
        with tracking(model) as modules, Recorder(names, modules) as recorder:
            model(*inputs)
        self.record = recorder.record
        self.padding: set[int] = set()
        self.passed: set[int] = set()
        self._count = 0

    def run(self, pattern: Callable[[Source], Tensor | None]) -> tuple[dict[int, Bools], bool]:
        """Mark what `pattern` says of each source; return what each sink saw, and whether the output was reached."""
        self.clock.check()
        raw = [(s, pattern(s)) for s in self.record.sources if s.call is None]
        marks = [(s, mask) for s, mask in raw if mask is not None]
        with self._raw_marks(marks), Replay(self.record, pattern) as replay:
            outputs = self.model(*self.inputs)
        self._count += 1
        if self._count % PASSES_PER_TRIM == 0:
            trim()
        self.passed = set(replay.padded)
        self.padding |= {number for number, channels in replay.padded.items() if channels}
        return {sink: seen.numpy() for sink, seen in replay.seen.items()}, sees_output(outputs)

    @contextmanager
    def _raw_marks(self, marks: list[tuple[Source, Tensor]]) -> Iterator[None]:
        saved: dict[str, Tensor] = {}
        for source, mask in marks:
            port = source.lane.port
            tensor = self.names.tensors[port.tensor].detach()
            saved.setdefault(port.tensor, tensor.clone())
            shape = [1] * tensor.dim()
            shape[port.axis] = -1
            tensor.masked_fill_(mask.reshape(shape), torch.nan)
        try:
            yield
        finally:
            for name, values in saved.items():
                self.names.tensors[name].detach().copy_(values)

    def spell(self, labels: Mapping[int, Ints]) -> dict[int, tuple[Ints, Bools, Bools]]:
        """Mark the given sources by the bits of their labels.

        Returns:
            For every sink that was reached: the label seen on each channel, whether anything was seen, and whether
            several labels were.
        """
        bits = max(1, int(max(int(values.max()) for values in labels.values())).bit_length())
        seen: dict[tuple[int, int], dict[int, Bools]] = {}
        for bit in range(bits):
            for value in (0, 1):
                seen[bit, value] = self.run(_bit_pattern(labels, bit, value))[0]
        sinks = {sink for marks in seen.values() for sink in marks}
        return {sink: _decode(sink, seen, bits, len(self.record.sinks[sink].coordinates)) for sink in sinks}


def _bit_pattern(labels: Mapping[int, Ints], bit: int, value: int) -> Callable[[Source], Tensor | None]:
    def pattern(source: Source) -> Tensor | None:
        values = labels.get(source.index)
        return None if values is None else torch.from_numpy((values >> bit) & 1 == value)

    return pattern


def _decode(
    sink: int, seen: Mapping[tuple[int, int], Mapping[int, Bools]], bits: int, size: int
) -> tuple[Ints, Bools, Bools]:
    code = np.zeros(size, dtype=np.int64)
    several = np.zeros(size, dtype=bool)
    nothing = np.zeros(size, dtype=bool)
    reached = nothing
    for bit in range(bits):
        zero, one = seen[bit, 0].get(sink, nothing), seen[bit, 1].get(sink, nothing)
        code |= one.astype(np.int64) << bit
        several |= zero & one
        reached = zero | one
    return code, reached, several
