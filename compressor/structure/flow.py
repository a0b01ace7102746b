"""Which operation reads what which others make: what would be left with constants alone if some returned constants."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

INPUT = -1
"""Stands for the network's input among the numbers of calls."""

Feed = frozenset[int]
"""The calls, by their numbers, and perhaps the input, that something depends on with no other call between."""


@dataclass(frozen=True)
class Flow:
    """The calls of a network in the order of the data, and what feeds them.

    Attributes:
        weights: The weight of every call.
        calls: What feeds every call; nothing, where it works on parameters alone.
        joints: What feeds each tensor that is put together with others (concatenated, multiplied as a matrix, padded):
            as a constant it would have to be written out in full, which takes operations that the network has not.
        outputs: What feeds each output.
    """

    weights: tuple[str, ...] = ()
    calls: tuple[Feed, ...] = ()
    joints: frozenset[Feed] = frozenset()
    outputs: frozenset[Feed] = frozenset()

    def starved(self, weights: Collection[str]) -> str | None:
        """What would depend on nothing but constants if all calls with these weights returned them, if anything.

        That is the weight of a call, or words. Calls on which nothing depends any more do not count. Those of which
        nobody was seen to read the output do, whatever becomes of it, and those that return constants as it is, because
        they work on parameters alone: they are computed once, and take no time.
        """
        constant = frozenset(n for n, weight in enumerate(self.weights) if weight in weights)
        idle = next((self.weights[n] for n in sorted(constant) if n not in self._varying or not self._readers[n]), None)
        if idle is not None:
            return idle
        if any(feed <= constant for feed in self.outputs if feed):
            return "an output of the network"
        calls = [n for n, feed in enumerate(self.calls) if feed and n not in constant and feed <= constant]
        joints = [feed for feed in self.joints if feed and feed <= constant]
        if not calls and not joints:
            return None
        live = self._live(constant)
        if any(not live.isdisjoint(feed) for feed in joints):
            return "a tensor that is put together with others"
        return next((self.weights[n] for n in calls if n in live), None)

    @cached_property
    def _readers(self) -> tuple[frozenset[int], ...]:
        """For every call those that read it; beyond the last call stand for joints and outputs."""
        readers: list[set[int]] = [set() for _ in self.calls]
        joint, output = len(self.calls), len(self.calls) + 1
        ends = [*((joint, feed) for feed in self.joints), *((output, feed) for feed in self.outputs)]
        for reader, feed in [*enumerate(self.calls), *ends]:
            for call in feed - {INPUT}:
                readers[call].add(reader)
        return tuple(frozenset(own) for own in readers)

    @cached_property
    def _varying(self) -> frozenset[int]:
        """The calls that depend on the network's input."""
        varying = {INPUT}
        for call, feed in enumerate(self.calls):
            varying |= set() if varying.isdisjoint(feed) else {call}
        return frozenset(varying)

    def _live(self, constant: Feed) -> set[int]:
        """The calls on which something else than constants may depend: what becomes of joints alone is not known."""
        joint, output = len(self.calls), len(self.calls) + 1
        live = {output}
        for call in reversed(range(len(self.calls))):
            readers = self._readers[call]
            if not readers - {joint} or not live.isdisjoint(readers - constant):
                live.add(call)
        return live
