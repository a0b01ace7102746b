"""Marked passes over a recorded network: in each, the channels are marked whose label has one bit of its word set."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from compressor.structure.tracing.couplings import Bools, Ints
from compressor.structure.tracing.ops import TensorNames
from compressor.structure.tracing.record import Recorder, Replay, Source, marked_outputs, tracking
from compressor.support.allocator import trim
from compressor.support.modules import restore

PASSES_PER_TRIM = 8
"""Passes between calls to malloc_trim: they fragment the heap."""


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


class Seen(NamedTuple):
    """Where marks were seen in a pass.

    Attributes:
        sinks: By the number of the sink, on which channels.
        padded: The operations by whose padding they came.
        joints: The operations that put tensors together, with the number of the tensor.
        outputs: The numbers of the network's outputs.
    """

    sinks: dict[int, Bools]
    padded: set[int]
    joints: set[tuple[int, int]]
    outputs: set[int]


class Passes:
    """Runs marked passes over a recorded network, within a time limit."""

    def __init__(
        self, model: nn.Module, inputs: tuple[Any, ...], names: TensorNames, clock: Clock, main: bool = True
    ) -> None:
        self.model, self.inputs, self.names = model, inputs, names
        self.clock, self.main = clock, main
        model(*inputs)  # what a network caches in its first run is there in all that follow
        versions = {tensor: _version(tensor) for tensor in (*model.parameters(), *model.buffers())}
        before = {buffer: buffer.clone() for buffer in model.buffers() if not buffer.is_meta}
        with tracking(model) as modules, Recorder(names, modules) as recorder:
            model(*inputs)
        self.record = recorder.record
        written = [t for t, version in versions.items() if _version(t) != version]
        self._written = {t: before.get(t, t).clone() for t in written} | {
            b: v for b, v in before.items() if _differ(b, v)
        }
        restore(self._written)
        self.padding: set[int] = set()
        self._count = 0

    def run(self, pattern: Callable[[Source], Tensor | None], *, joints: bool = False) -> Seen:
        """Mark what `pattern` says of each source; return where marks were seen, in joints only if asked for."""
        return self._run(pattern, self.inputs, joints)

    def run_input(self) -> Seen:
        """Mark the network's input; nothing is seen where the network's code does not get along with that."""
        try:
            return self._run(lambda source: None, tree_map(_marked, self.inputs), joints=True)
        except OutOfTime:
            raise
        except Exception:
            return Seen({}, set(), set(), set())

    def _run(self, pattern: Callable[[Source], Tensor | None], inputs: tuple[Any, ...], joints: bool) -> Seen:
        self.clock.check()
        raw = [(s, pattern(s)) for s in self.record.sources if s.call is None]
        marks = [(s, mask) for s, mask in raw if mask is not None]
        try:
            with self._raw_marks(marks), Replay(self.record, pattern, joints=joints) as replay:
                outputs = self.model(*inputs)
        finally:
            restore(self._written)
        self._count += 1
        if self._count % PASSES_PER_TRIM == 0:
            trim()
        self.padding |= {number for number, channels in replay.padded.items() if channels}
        sinks = {sink: seen.numpy() for sink, seen in replay.seen.items()}
        return Seen(sinks, set(replay.padded), replay.joints, marked_outputs(outputs))

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
        """Mark the given sources by the words for their labels, bit by bit.

        Returns:
            For every sink that was reached: the label seen on each channel, whether anything was seen, and whether
            several labels were.
        """
        words = code_words(1 + max(int(values.max()) for values in labels.values()))
        seen = [self.run(_bit_pattern(labels, word_bits)).sinks for word_bits in words]
        sinks = {sink for marks in seen for sink in marks}
        return {sink: _decode(sink, seen, words, len(self.record.sinks[sink].coordinates)) for sink in sinks}


def _marked(value: Any) -> Any:
    return torch.full_like(value, torch.nan) if isinstance(value, Tensor) and value.is_floating_point() else value


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _differ(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and not torch.equal(left, right)


def code_words(count: int) -> Bools:
    """Words for so many labels, (bits, labels): all have equally many bits set, so two of them together have more."""
    bits = next(bits for bits in itertools.count(2) if math.comb(bits, bits // 2) >= count)
    words = np.zeros((bits, count), dtype=bool)
    for label, chosen in enumerate(itertools.islice(itertools.combinations(range(bits), bits // 2), count)):
        words[list(chosen), label] = True
    return words


def _bit_pattern(labels: Mapping[int, Ints], bit: Bools) -> Callable[[Source], Tensor | None]:
    def pattern(source: Source) -> Tensor | None:
        values = labels.get(source.index)
        return None if values is None else torch.from_numpy(bit[values])

    return pattern


def _decode(sink: int, seen: Sequence[Mapping[int, Bools]], words: Bools, size: int) -> tuple[Ints, Bools, Bools]:
    nothing = np.zeros(size, dtype=bool)
    spelled = np.stack([marks.get(sink, nothing) for marks in seen])
    count: Ints = spelled.sum(axis=0)
    weights = 1 << np.arange(len(words), dtype=np.int64)
    numbers = weights @ words
    label_of = np.argsort(numbers)
    found = np.searchsorted(numbers, weights @ spelled, sorter=label_of).clip(max=len(numbers) - 1)
    return label_of[found], count > 0, count > words[:, 0].sum()
