"""Which channels are coupled: the marks of a few dozen passes, decoded.

Every channel has a label, at first its number. In pass (b, v) the channels whose label has bit b equal to v are marked;
at each input channel of each operation the bits that are seen spell the label of what feeds it. A bit that is seen as 0
and as 1 says that several labels meet there: then the sources that meet are told apart by marking them in different
colours, and a source that still mixes (attention heads, groups of a group norm) gets coarser labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd

from compressor.structure.marks import Record, Recorder, Replay, Source, sees_output, tracking
from compressor.structure.watch import Lane, Port, TensorNames, WeightCall

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

OUT_OF_TIME = "the search for what is coupled to it ran out of time"


@dataclass
class Couplings:
    """Edges between coordinates of ports, and what is known about them besides.

    Attributes:
        calls: The operations with weights, in the order of the data.
        norms: The batch norm that follows a layer.
        ports: Every port that was seen, with the number of its first coordinate.
        pairs: Pairs of coordinates that must be kept or cut together.
        fixed: Coordinates that must stay, with the reason.
        edges: Which calls read what which other calls make, by their numbers in the first run.
        first, last: The calls that read the network's input, and those that make its output.
        mixed: Ports whose channels cannot be told apart, with the reason.
    """

    calls: list[WeightCall] = field(default_factory=list)
    norms: dict[str, str] = field(default_factory=dict)
    ports: dict[Port, int] = field(default_factory=dict)
    pairs: list[tuple[Ints, Ints]] = field(default_factory=list)
    fixed: list[tuple[Ints, str]] = field(default_factory=list)
    mixed: dict[Port, str] = field(default_factory=dict)
    edges: set[tuple[int, int]] = field(default_factory=set)
    first: set[int] = field(default_factory=set)
    last: set[int] = field(default_factory=set)
    total: int = 0

    def places(self, lane: Lane) -> Ints:
        """The numbers of the channels of a lane among all coordinates."""
        if lane.port not in self.ports:
            self.ports[lane.port] = self.total
            self.total += lane.port.size
        return np.asarray(lane.coordinates, dtype=np.int64) + self.ports[lane.port]

    def passable_without(self, weights: set[str]) -> bool:
        """True where the output still depends on the input when all calls with these weights return constants."""
        open_calls = {n for n, call in enumerate(self.calls) if call.weight not in weights}
        reached, found = set(), self.first & open_calls
        while found:
            reached |= found
            found = {b for a, b in self.edges if a in found and b in open_calls} - reached
        return bool(reached & self.last)

    def join(self, left: Ints, right: Ints) -> None:
        """Couple two arrays of coordinates element by element."""
        self.pairs.append((left, right))


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

    def run(self, pattern: Callable[[Source], Tensor | None]) -> tuple[dict[int, Bools], bool]:
        """Mark what `pattern` says of each source; return what each sink saw, and whether the output was reached."""
        self.clock.check()
        raw = [(s, pattern(s)) for s in self.record.sources if s.call is None]
        marks = [(s, mask) for s, mask in raw if mask is not None]
        with self._raw_marks(marks), Replay(self.record, pattern) as replay:
            outputs = self.model(*self.inputs)
        self.passed = set(replay.padded)
        self.padding |= {number for number, channels in replay.padded.items() if channels}
        return {sink: seen.numpy() for sink, seen in replay.seen.items()}, sees_output(outputs)

    @contextmanager
    def _raw_marks(self, marks: list[tuple[Source, Tensor]]) -> Any:
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


def find_couplings(model: nn.Module, inputs: tuple[Any, ...], *, seconds: float = 120.0) -> Couplings:
    """Find all couplings of a network that is in evaluation mode.

    Layers that do not run then (auxiliary heads) are looked for in a second run in which the modules that contain
    others believe to be training.

    Args:
        model: The network; its weights are the same afterwards.
        inputs: What `model(*inputs)` takes.
        seconds: Processor time after which the search ends; channels whose couplings are not known then are fixed.

    Raises:
        InputError: The network takes another way from run to run.
    """
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels lose NaN
        return _find_couplings(model, inputs, Clock(seconds))


def _find_couplings(model: nn.Module, inputs: tuple[Any, ...], clock: Clock) -> Couplings:
    names = TensorNames(model)
    couplings = Couplings()
    _survey(couplings, Passes(model, inputs, names, clock))
    seen = {call.weight for call in couplings.calls}
    idle = [name for name, module in model.named_modules() if _has_weight(module) and f"{name}.weight" not in seen]
    if idle and runs_auxiliary(model, inputs):
        with containers_training(model):
            _survey(couplings, Passes(model, inputs, names, clock, main=False))
    return couplings


def runs_auxiliary(model: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """True where the network runs on these inputs when its containers believe to be training."""
    with containers_training(model):
        try:
            model(*inputs)
        except Exception:  # whatever the network's code raises: it asks for targets, or for larger pictures
            return False
    return True


def _has_weight(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return weight is not None and weight.dim() > 1


def _survey(couplings: Couplings, passes: Passes) -> None:
    record = passes.record
    known = {call.weight for call in couplings.calls}
    couplings.calls += record.calls if not known else [c for c in record.calls if c.weight not in known]
    couplings.norms = record.norms | couplings.norms
    for call in record.calls:
        _join_bias(couplings, call)
        if call.depthwise and call.source is not None:
            _join_multiplier(couplings, call.source)
    _Search(passes, couplings, known).run(record.sources)
    raw = _raw_sources(couplings, passes)
    if raw:
        record.sources = raw
        _Search(passes, couplings).run(raw)
    _fix_unfed(couplings, record, passes.main)


@contextmanager
def containers_training(model: nn.Module) -> Iterator[None]:
    """Training mode for the modules that contain others and hold no tensors; layers stay in evaluation mode."""
    chosen = [m for m in model.modules() if m._modules and not m._parameters and not m._buffers and not m.training]
    for module in chosen:
        module.training = True
    try:
        yield
    finally:
        for module in chosen:
            module.training = False


def _fix_unfed(couplings: Couplings, record: Record, main: bool) -> None:
    """Inputs that nothing was seen to feed come from outside."""
    read = {call: couplings.places(record.sinks[sink]) for sink, call in record.sink_calls.items()}
    joined = np.zeros(couplings.total, dtype=bool)
    for left, right in couplings.pairs:
        joined[left] = joined[right] = True
    couplings.fixed += [(places[~joined[places]], "it reads the network's input") for places in read.values()]
    couplings.first |= {call for call, places in read.items() if main and not joined[places].all()}


def _join_multiplier(couplings: Couplings, lane: Lane) -> None:
    """A depthwise convolution makes several channels of one: they stay together."""
    rows, channels = lane.port.size, len(lane.coordinates)
    first = np.repeat(couplings.places(lane), rows // channels)
    couplings.join(first, couplings.places(Lane(lane.port, tuple(range(rows)))))


def _join_bias(couplings: Couplings, call: WeightCall) -> None:
    if call.bias is None or call.source is None:
        return
    lane = Lane(call.source.port, tuple(range(call.source.port.size))) if call.depthwise else call.source
    size = len(lane.coordinates)
    couplings.join(couplings.places(lane), couplings.places(Lane(Port(call.bias, 0, size), tuple(range(size)))))


def _raw_sources(couplings: Couplings, passes: Passes) -> list[Source]:
    """The axes of all tensors that no operation was seen to use, but for weights of layers that went unrecognised."""
    known = {port.tensor for port in couplings.ports}
    known |= {f"{name}.weight" for name, m in passes.model.named_modules() if isinstance(m, (_ConvNd, nn.Linear))}
    raw: list[Source] = []
    for name, tensor in passes.names.tensors.items():
        if name in known or not tensor.is_floating_point():
            continue
        for axis, size in enumerate(tensor.shape):
            if size > 1:
                raw.append(Source(len(raw), Lane(Port(name, axis, size), tuple(range(size)))))
    return raw


class _Search:
    """Decodes who feeds whom for one set of sources; between weights of earlier runs nothing is looked for again."""

    def __init__(self, passes: Passes, couplings: Couplings, earlier: Collection[str] = ()) -> None:
        self.passes, self.couplings, self.earlier = passes, couplings, earlier
        self.reach: dict[int, dict[int, Bools]] = {}
        self.pads: dict[int, set[int]] = {}
        self.known: set[int] = set()

    def run(self, sources: list[Source]) -> None:
        """Decode all sources, or as many as there is time for."""
        try:
            self._run(sources)
        except OutOfTime:
            self._give_up([s for s in sources if s.call is not None and s.index not in self.known])

    def _give_up(self, sources: Iterable[Source]) -> None:
        """Fix the sources that are not decoded, and all that they reach."""
        for source in sources:
            reached = self.reach.get(source.index, {})
            lanes = [source.lane, *(self.passes.record.sinks[sink] for sink in reached)]
            self.couplings.fixed += [(self.couplings.places(lane), OUT_OF_TIME) for lane in lanes]

    def _run(self, sources: list[Source]) -> None:
        weights = bool(sources) and sources[0].call is not None
        for source in sources:
            self.reach[source.index], leaves = self.passes.run(_whole(source))
            self.pads[source.index] = self.passes.passed
            if weights:
                self._note(source, leaves)
        sources = [s for s in sources if not weights or (s.size > 1 and self._is_new(s))]
        if not sources:
            return
        unclear: dict[int, Bools] = {}
        for batch in _by_axis(sources):
            spelled = self.passes.spell({s.index: np.arange(s.size) for s in batch})
            for sink, (code, reached, several) in spelled.items():
                self._couple(batch, sink, code, reached & ~several)
                unclear[sink] = unclear.get(sink, np.zeros(len(code), dtype=bool)) | several
            if weights:
                self._fix_padded(batch)
            self._resolve(batch, {sink: mask for sink, mask in unclear.items() if mask.any()}, weights)

    def _is_new(self, source: Source) -> bool:
        record = self.passes.record
        ends = [source.call, *(record.sink_calls.get(sink) for sink in self.reach[source.index])]
        return any(record.calls[end].weight not in self.earlier for end in ends if end is not None)

    def _note(self, source: Source, leaves: bool) -> None:
        places, calls = self.couplings.places(source.lane), self.passes.record.sink_calls
        assert source.call is not None
        if leaves:
            self.couplings.fixed.append((places, "it is the network's output"))
        elif source.size == 1:
            self.couplings.fixed.append((places, "it has a single channel"))
        if self.passes.main:
            self.couplings.edges |= {(source.call, calls[k]) for k in self.reach[source.index] if k in calls}
            self.couplings.last |= {source.call} if leaves else set()

    def _couple(self, sources: Iterable[Source], sink: int, code: Ints, clear: Bools) -> None:
        places = self.couplings.places(self.passes.record.sinks[sink])
        for source in sources:
            hit = self.reach[source.index].get(sink)
            if hit is None:
                continue
            channels = np.flatnonzero(hit & clear & (code < source.size))
            if channels.size:
                self.couplings.join(places[channels], self.couplings.places(source.lane)[code[channels]])

    def _fix_padded(self, sources: Iterable[Source]) -> None:
        for source in sources:
            for number in sorted(self.pads[source.index] & self.passes.padding)[:1]:
                module = self.passes.record.events[number].module or "forward()"
                reason = f"{module} pads its channels by a constant, which fixes their number"
                self.couplings.fixed.append((self.couplings.places(source.lane), reason))

    def _resolve(self, sources: list[Source], unclear: Mapping[int, Bools], weights: bool) -> None:
        meeting = {
            s.index: {k: self.reach[s.index][k] & mask for k, mask in unclear.items() if k in self.reach[s.index]}
            for s in sources
        }
        meeting = {i: {k: m for k, m in hits.items() if m.any()} for i, hits in meeting.items()}
        involved = [s for s in sources if meeting[s.index]]
        self.known |= {s.index for s in sources if not meeting[s.index]}
        for colour in _colours(involved, meeting):
            self._resolve_apart(colour, meeting, weights)
            self.known |= {s.index for s in colour}

    def _resolve_apart(self, sources: list[Source], meeting: Mapping[int, Mapping[int, Bools]], weights: bool) -> None:
        open_sinks = {s.index: dict(meeting[s.index]) for s in sources}
        labels = {s.index: np.arange(s.size) for s in sources}
        tried: dict[int, list[Ints]] = {}
        while labels:
            spelled = self.passes.spell(labels)
            for source in sources:
                if source.index in labels:
                    self._settle(source, labels[source.index], spelled, open_sinks[source.index])
            left = [s for s in sources if s.index in labels and self._weight_sinks(open_sinks[s.index])]
            if not tried:
                tried = self._coarser(left, open_sinks)
            labels = {s.index: tried[s.index].pop(0) for s in left if tried.get(s.index)}
        if weights:
            for source in sources:
                self._merge(source, self._weight_sinks(open_sinks[source.index]))

    def _weight_sinks(self, sinks: Mapping[int, Bools]) -> dict[int, Bools]:
        return {k: mask for k, mask in sinks.items() if k in self.passes.record.sink_calls}

    def _settle(
        self,
        source: Source,
        label: Ints,
        spelled: Mapping[int, tuple[Ints, Bools, Bools]],
        sinks: dict[int, Bools],
    ) -> None:
        own = self.couplings.places(source.lane)
        members = [own[label == value] for value in range(int(label.max()) + 1)]
        coarse = len(members) < source.size
        used = False
        weights = self.passes.record.sink_calls
        for sink in sorted(sinks, key=lambda number: number not in weights):
            if sink not in spelled:
                continue
            code, reached, several = spelled[sink]
            clear = sinks[sink] & reached & ~several
            if coarse and sink not in weights and not (used and clear[sinks[sink]].all()):
                continue
            places = self.couplings.places(self.passes.record.sinks[sink])
            for channel in np.flatnonzero(clear):
                self.couplings.join(places[[channel]], members[code[channel]][:1])
                used = True
            sinks[sink] = sinks[sink] & ~clear
            if not sinks[sink].any():
                del sinks[sink]
        if used and coarse:
            for group in members:
                self.couplings.join(np.repeat(group[:1], len(group) - 1), group[1:])

    def _coarser(self, sources: list[Source], sinks: Mapping[int, Mapping[int, Bools]]) -> dict[int, list[Ints]]:
        if not sources:
            return {}
        chosen = {s.index for s in sources}
        probes = [self.passes.run(_single(chosen, share))[0] for share in (0.0, 0.5, 1.0)]
        labels: dict[int, list[Ints]] = {}
        for source in sources:
            own = sinks[source.index]
            widths = {int((seen[k] & mask).sum()) for seen in probes for k, mask in own.items() if k in seen}
            classes = {len(mask) // w for mask in own.values() for w in widths if w}
            labels[source.index] = _coarse_labels(source.size, widths - {0, 1}, classes - {0, 1, source.size})
        return labels

    def _merge(self, source: Source, sinks: Mapping[int, Bools]) -> None:
        if not sinks:
            return
        own = self.couplings.places(source.lane)
        self.couplings.join(np.repeat(own[:1], len(own) - 1), own[1:])
        for sink, mask in sinks.items():
            places = self.couplings.places(self.passes.record.sinks[sink])[mask]
            self.couplings.join(places, np.repeat(own[:1], len(places)))
            call = self.passes.record.calls[self.passes.record.sink_calls[sink]]
            self.couplings.mixed[source.lane.port] = f"its channels are mixed on the way to {call.layer}"


def _whole(source: Source) -> Callable[[Source], Tensor | None]:
    return lambda s: torch.ones(s.size, dtype=torch.bool) if s.index == source.index else None


def _single(chosen: set[int], share: float) -> Callable[[Source], Tensor | None]:
    """Mark one channel of the chosen sources: the first, the last, or one between."""
    return lambda s: torch.arange(s.size) == int(share * (s.size - 1)) if s.index in chosen else None


def _by_axis(sources: list[Source]) -> list[list[Source]]:
    """Axes of one raw tensor are never marked together; the outputs of calls all are."""
    if sources[0].call is not None:
        return [sources]
    axes = sorted({s.lane.port.axis for s in sources})
    return [[s for s in sources if s.lane.port.axis == axis] for axis in axes]


def _coarse_labels(size: int, widths: Iterable[int], classes: Iterable[int]) -> list[Ints]:
    channel = np.arange(size)
    labels = []
    for count in sorted(classes, reverse=True):
        for width in sorted(widths):
            labels.append(channel // width % count)
        if size % count == 0:
            labels += [channel // (size // count), channel % count]
    unique = {values.tobytes(): values for values in labels if values.max() > 0}
    return list(unique.values())


def _colours(sources: list[Source], meeting: Mapping[int, Mapping[int, Bools]]) -> list[list[Source]]:
    """Greedy colouring: sources whose marks meet on a channel get different colours."""
    colours: list[tuple[list[Source], dict[int, Bools]]] = []
    for source in sources:
        hits = meeting[source.index]
        free = [c for c in colours if not any(k in c[1] and (c[1][k] & mask).any() for k, mask in hits.items())]
        if not free:
            free.append(([], {}))
            colours.append(free[0])
        members, taken = free[0]
        members.append(source)
        for k, mask in hits.items():
            taken[k] = taken[k] | mask if k in taken else mask.copy()
    return [members for members, _ in colours]
