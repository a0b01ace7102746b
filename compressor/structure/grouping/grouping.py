"""From couplings to channel groups: what is cut together, and what may not be cut and why."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from compressor.structure.groups import ChannelGroup, Role, Skipped, Slice
from compressor.structure.tracing.couplings import Couplings, Ints
from compressor.structure.tracing.ops import Port
from compressor.structure.tracing.record import BARE, COMPUTED_PREFIX, NORM_PREFIX

Units = dict[Port, Ints]
"""Units that are alike: for every port, the coordinates on it, as an array (units, coordinates of each unit)."""


class Survey:
    """Sorts the connected components of the couplings into groups."""

    def __init__(self, couplings: Couplings, owners: dict[str, tuple[str, ...]], *, inexact: bool = False) -> None:
        self.couplings, self.owners, self.inexact = couplings, owners, inexact
        self.roles: dict[Port, Role] = {}
        self.blocks: dict[Port, int] = {}
        self.rank: dict[Port, int] = {}
        self.order: dict[Port, int] = {}
        for number, call in enumerate(couplings.calls):
            for lane in (call.source, call.sink):
                if lane is not None:
                    self.order.setdefault(lane.port, number)
            if call.source is not None and not call.depthwise:
                self.roles.setdefault(call.source.port, "producer")
                self.rank.setdefault(call.source.port, number)
            if call.sink is not None and not call.depthwise:
                self.roles[call.sink.port] = "consumer"
            for lane in (call.source, call.sink):
                if lane is not None and call.groups > 1 and not call.depthwise:
                    self.blocks[lane.port] = call.groups
        self.biases = {
            Port(c.bias, 0, len(c.source.coordinates)): c.source.port
            for c in couplings.calls
            if c.bias is not None and c.source is not None and not c.depthwise
        }

    def groups(self, kept: dict[str, str]) -> tuple[list[ChannelGroup], list[Skipped]]:
        """All groups in the order of the data, and what was skipped."""
        groups: list[ChannelGroup] = []
        refused: dict[Port, str] = {}
        for units, reason in self._alike():
            producers = [p for p in units if self.roles.get(p) == "producer"]
            if not producers:
                continue
            made = reason or self._group(units, {g.name for g in groups}, kept)
            if isinstance(made, ChannelGroup):
                groups.append(made)
            else:
                refused |= dict.fromkeys(producers, made)
        used = {(s.tensor, s.axis) for g in groups for s in g.slices}
        skipped = [
            Skipped(self.owners[port.tensor], reason)
            for port, reason in sorted(refused.items(), key=lambda item: self.rank[item[0]])
            if (port.tensor, port.axis) not in used
        ]
        return sorted(groups, key=self._place), skipped

    def _place(self, group: ChannelGroup) -> int:
        return min(self.rank[p] for p in self.rank if any(s.tensor == p.tensor for s in group.slices))

    def _role(self, port: Port) -> Role:
        if port in self.biases:
            return self.roles.get(self.biases[port], "carrier")
        return self.roles.get(port, "carrier")

    def _alike(self) -> Iterator[tuple[Units, str | None]]:
        """The connected components, those together that have equally many coordinates on the same ports.

        With each, why it may not be cut, if so; these come first.
        """
        ports = list(self.couplings.ports)
        if not ports:
            return
        label = self._components()
        order = np.argsort(label, kind="stable")
        port_of = np.repeat(np.arange(len(ports)), [p.size for p in ports])[order]
        coordinate = np.concatenate([np.arange(p.size) for p in ports])[order]
        piece = np.flatnonzero(np.diff(label[order], prepend=-1) | np.diff(port_of, prepend=-1))
        size, port_of = np.diff(piece, append=len(order)), port_of[piece]
        begin = np.flatnonzero(np.diff(label[order[piece]], prepend=-1))
        alike: dict[tuple[bool, str | None, bytes, bytes], list[int]] = defaultdict(list)
        reasons = self._reasons(label)
        for number, (a, b) in enumerate(itertools.pairwise([*begin.tolist(), len(piece)])):
            reason = reasons.get(number)
            alike[reason is None, reason, port_of[a:b].tobytes(), size[a:b].tobytes()].append(a)
        for (_, reason, own, widths), pieces in sorted(alike.items(), key=lambda item: item[0][0]):
            ends = np.cumsum(np.frombuffer(widths, dtype=size.dtype))
            rows = coordinate[piece[pieces][:, None] + np.arange(ends[-1])]
            of_port = zip(np.frombuffer(own, dtype=port_of.dtype), np.split(rows, ends[:-1], axis=1), strict=True)
            yield {ports[p]: c for p, c in of_port}, reason

    def _components(self) -> Ints:
        """For every coordinate, the number of the connected component that it belongs to."""
        total, pairs = self.couplings.total, self.couplings.pairs
        left, right = (np.concatenate([np.zeros(0, dtype=np.int64), *(p[side] for p in pairs)]) for side in (0, 1))
        graph = coo_matrix((np.ones(len(left), dtype=bool), (left, right)), shape=(total, total))
        label: Ints = connected_components(graph, directed=False)[1]
        return label

    def _reasons(self, label: Ints) -> dict[int, str]:
        """Why components may not be cut, by their numbers."""
        couplings = self.couplings
        reasons: dict[int, str] = {}
        for places, reason in couplings.fixed:
            reasons |= dict.fromkeys(label[places].tolist(), reason)
        for port, reason in couplings.mixed.items():
            start = couplings.ports[port]
            reasons |= dict.fromkeys(label[start : start + port.size].tolist(), reason)
        return reasons

    def _group(self, units: Units, names: set[str], kept: dict[str, str]) -> ChannelGroup | str:
        ports = sorted(units, key=lambda p: (self.order.get(p, len(self.order)), p.tensor, p.axis))
        lead = min((p for p in ports if self.roles.get(p) == "producer"), key=self.rank.__getitem__)
        order = np.argsort(units[lead][:, 0])
        units = {port: coordinates[order] for port, coordinates in units.items()}
        alike = {(c.shape, c.tobytes()): c for c in units.values()}
        tuples = {key: tuple(map(tuple, c.tolist())) for key, c in alike.items()}
        slices = tuple(
            Slice(p.tensor, p.axis, self._role(p), tuples[units[p].shape, units[p].tobytes()], p.conv_groups)
            for p in ports
            if not p.tensor.startswith((NORM_PREFIX, COMPUTED_PREFIX))
        )
        held = next((kept[s.layer] for s in slices if s.layer in kept), None)
        if held is not None:
            return f"kept as it is ({held})"
        norms = [p.tensor for p in ports if p.tensor.startswith(NORM_PREFIX)]
        if norms and not self.inexact:
            return f"its channels are {norms[0].partition('#')[0]} together, so cutting some changes all the others"
        bare = next((n.partition("#")[0] for n in norms if n.endswith(BARE)), None)
        if bare is not None:
            return f"its channels are {bare}, which has no weights to tell how many channels are left"
        computed = next((p.tensor for p in ports if p.tensor.startswith(COMPUTED_PREFIX)), None)
        if computed is not None:
            return f"its channels are {computed.partition('#')[0]}, which would change if some were cut"
        if not any(s.role == "consumer" for s in slices):
            return "nothing reads its channels"
        if len(order) == 1:
            return "it has a single unit, which cannot be divided"
        blocks = self._blocks(ports, units)
        if isinstance(blocks, str):
            return blocks
        if len(blocks) == len(order):
            return "it has a single unit in each group of a grouped convolution, which cannot be divided"
        layer = lead.tensor.rpartition(".")[0]
        name = next(n for n in _names(layer, int(units[lead][0, 0])) if n not in names)
        return ChannelGroup(name, len(order), slices, blocks, inexact=bool(norms))

    def _blocks(self, ports: Sequence[Port], units: Units) -> tuple[tuple[int, ...], ...] | str:
        """Partition of the units of which equally many must stay, from all grouped convolutions they pass."""
        partition: tuple[tuple[int, ...], ...] = ()
        for port in ports:
            if port not in self.blocks:
                continue
            width = port.size // self.blocks[port]
            touched = [frozenset(groups) for groups in (units[port] // width).tolist()]
            if len(set(touched)) == 1:
                continue
            found: dict[frozenset[int], list[int]] = defaultdict(list)
            for unit, block in enumerate(touched):
                found[block].append(unit)
            own = tuple(sorted(map(tuple, found.values())))
            if len(own) != self.blocks[port] or len({len(b) for b in own}) != 1:
                return f"its channels are spread unevenly over the groups of {port.tensor.rpartition('.')[0]}"
            fine, coarse = (own, partition) if len(own) >= len(partition) else (partition, own)
            if any(sum(set(f) <= set(c) for f in fine) * len(coarse) != len(fine) for c in coarse):
                return "the grouped convolutions that it passes divide it differently"
            partition = fine
        return partition


def _names(layer: str, first: int) -> Iterable[str]:
    yield layer
    yield f"{layer}[{first}]"
    yield from (f"{layer}[{first}]#{n}" for n in range(2, 1000))
