"""Which channel feeds which: the marks of a few dozen passes, decoded.

Every channel has a label, at first its number, and every label a word in which equally many bits are set. In pass b the
channels whose word has bit b are marked; at each input channel of each operation the bits that are seen spell the word
of what feeds it. Too many bits say that several labels meet there: then the sources that meet are told apart by marking
them in different colours, and a source that still mixes (attention heads, groups of a group norm) gets coarser labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from compressor.structure.flow import INPUT, Flow
from compressor.structure.tracing.couplings import Bools, Couplings, Ints
from compressor.structure.tracing.passes import OutOfTime, Passes, Seen
from compressor.structure.tracing.record import Record, Source

OUT_OF_TIME = "the search for what is coupled to it ran out of time"


class Search:
    """Decodes who feeds whom for one set of sources; between tensors of earlier runs nothing is looked for again."""

    def __init__(self, passes: Passes, couplings: Couplings, earlier: Collection[str] = ()) -> None:
        self.passes, self.couplings, self.earlier = passes, couplings, set(earlier)
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
        weights, marked = bool(sources) and sources[0].call is not None, dict[int, Seen]()
        for source in sources:
            seen = self.passes.run(_whole(source), joints=weights)
            self.reach[source.index], self.pads[source.index] = seen.sinks, seen.padded
            if source.call is not None:
                self._note(source, bool(seen.outputs))
                marked[source.call] = seen
        if weights and self.passes.main:
            self.couplings.flow = _flow(self.passes.record, marked | {INPUT: self.passes.run_input()})
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
        sinks = (self.passes.record.sinks[sink] for sink in self.reach[source.index])
        tensors = {source.lane.port.tensor, *(lane.port.tensor for lane in sinks)}
        return not tensors.isdisjoint(self.passes.names.tensors.keys() - self.earlier)

    def _note(self, source: Source, leaves: bool) -> None:
        places = self.couplings.places(source.lane)
        if leaves:
            self.couplings.fixed.append((places, "it is the network's output"))
        elif source.size == 1:
            self.couplings.fixed.append((places, "it has a single channel"))

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
        first, members = _by_label(own, label)
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
            self.couplings.join(places[clear], first[code[clear]])
            used = used or bool(clear.any())
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
        probes = [self.passes.run(_single(chosen, share)).sinks for share in (0.0, 0.5, 1.0)]
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


def _flow(record: Record, marked: Mapping[int, Seen]) -> Flow:
    """What feeds what, from what was seen when the input and the output of every call were marked."""
    calls: list[set[int]] = [set() for _ in record.calls]
    joints, outputs = defaultdict[tuple[int, int], set[int]](set), defaultdict[int, set[int]](set)
    for call, seen in marked.items():
        read = (calls[record.sink_calls[sink]] for sink in seen.sinks if sink in record.sink_calls)
        for feed in (*read, *(joints[n] for n in seen.joints), *(outputs[n] for n in seen.outputs)):
            feed.add(call)
    blind = not any(INPUT in feed for feed in calls)  # an input of whole numbers, or one that could not be marked
    for number, feed in enumerate(calls):
        feed |= {INPUT} if record.calls[number].sink is None or (blind and not feed) else set()
    return Flow(
        tuple(call.weight for call in record.calls),
        tuple(map(frozenset, calls)),
        frozenset(map(frozenset, joints.values())),
        frozenset(map(frozenset, outputs.values())),
    )


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


def _by_label(places: Ints, label: Ints) -> tuple[Ints, list[Ints]]:
    """The first place with each label, and all places with each label; labels are counted from 0."""
    members = np.split(places[np.argsort(label, kind="stable")], np.cumsum(np.bincount(label))[:-1])
    return np.array([group[0] for group in members]), members


def _coarse_labels(size: int, widths: Iterable[int], classes: Iterable[int]) -> list[Ints]:
    channel = np.arange(size)
    labels = []
    for count in sorted(classes, reverse=True):
        for width in sorted(widths):
            labels.append(channel // width % count)
        if size % count == 0:
            labels += [channel // (size // count), channel % count]
    unique = {values.tobytes(): values for values in labels if values.max() > 0}
    return sorted(unique.values(), key=lambda values: -int(values.max()))  # the finest that can be told apart


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
