"""From couplings to channel groups: what is cut together, and what may not be cut and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from compressor.structure.couplings import Couplings
from compressor.structure.groups import ChannelGroup, Role, Skipped, Slice
from compressor.structure.marks import COMPUTED_PREFIX, NORM_PREFIX
from compressor.structure.watch import Port

Unit = dict[Port, tuple[int, ...]]


@dataclass(frozen=True)
class _Component:
    """Coordinates that are cut together: one unit, and why it may not be cut."""

    unit: Unit
    reason: str | None


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
        by_signature: dict[Any, list[Unit]] = defaultdict(list)
        refused: dict[Port, str] = {}
        for component in self._components():
            producers = [p for p in component.unit if self.roles.get(p) == "producer"]
            if component.reason is not None:
                refused |= dict.fromkeys(producers, component.reason)
            elif producers:
                by_signature[self._signature(component.unit)].append(component.unit)
        groups: list[ChannelGroup] = []
        for units in by_signature.values():
            made = self._group(units, {g.name for g in groups}, kept)
            if isinstance(made, ChannelGroup):
                groups.append(made)
            else:
                refused |= dict.fromkeys((p for p in units[0] if self.roles.get(p) == "producer"), made)
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

    def _signature(self, unit: Unit) -> Any:
        return frozenset((port, len(places)) for port, places in unit.items())

    def _components(self) -> list[_Component]:
        couplings = self.couplings
        ports = list(couplings.ports)
        port_of = np.repeat(np.arange(len(ports)), [p.size for p in ports])
        start = np.repeat(np.array([couplings.ports[p] for p in ports]), [p.size for p in ports])
        coordinate = np.arange(couplings.total) - start
        left = np.concatenate([pair[0] for pair in couplings.pairs])
        right = np.concatenate([pair[1] for pair in couplings.pairs])
        graph = coo_matrix((np.ones(len(left), dtype=bool), (left, right)), shape=(couplings.total, couplings.total))
        count, label = connected_components(graph, directed=False)
        reasons: dict[int, str] = {}
        for places, reason in couplings.fixed:
            reasons |= dict.fromkeys(label[places].tolist(), reason)
        for port, reason in couplings.mixed.items():
            reasons |= dict.fromkeys(label[couplings.ports[port] : couplings.ports[port] + port.size].tolist(), reason)
        units: list[dict[Port, list[int]]] = [{} for _ in range(count)]
        for owner, p, c in zip(label.tolist(), port_of.tolist(), coordinate.tolist(), strict=True):
            units[owner].setdefault(ports[p], []).append(c)
        return [
            _Component({port: tuple(c) for port, c in unit.items()}, reasons.get(number))
            for number, unit in enumerate(units)
        ]

    def _group(self, units: list[Unit], names: set[str], kept: dict[str, str]) -> ChannelGroup | str:
        ports = sorted(units[0], key=lambda p: (self.order.get(p, len(self.order)), p.tensor, p.axis))
        lead = min((p for p in ports if self.roles.get(p) == "producer"), key=self.rank.__getitem__)
        units = sorted(units, key=lambda unit: unit[lead])
        slices = tuple(
            Slice(p.tensor, p.axis, self._role(p), tuple(unit[p] for unit in units), p.conv_groups)
            for p in ports
            if not p.tensor.startswith((NORM_PREFIX, COMPUTED_PREFIX))
        )
        held = next((kept[s.layer] for s in slices if s.layer in kept), None)
        if held is not None:
            return f"kept as it is ({held})"
        norms = [p.tensor for p in ports if p.tensor.startswith(NORM_PREFIX)]
        if norms and not self.inexact:
            return f"its channels are {norms[0].partition('#')[0]} together, so cutting some changes all the others"
        computed = next((p.tensor for p in ports if p.tensor.startswith(COMPUTED_PREFIX)), None)
        if computed is not None:
            return f"its channels are {computed.partition('#')[0]}, which would change if some were cut"
        if not any(s.role == "consumer" for s in slices):
            return "nothing reads its channels"
        if len(units) == 1:
            return "it has a single unit, which cannot be divided"
        blocks = self._blocks(ports, units)
        if isinstance(blocks, str):
            return blocks
        if len(blocks) == len(units):
            return "it has a single unit in each group of a grouped convolution, which cannot be divided"
        layer = lead.tensor.rpartition(".")[0]
        name = next(n for n in _names(layer, units[0][lead][0]) if n not in names)
        return ChannelGroup(name, len(units), slices, blocks, inexact=bool(norms))

    def _blocks(self, ports: Sequence[Port], units: list[Unit]) -> tuple[tuple[int, ...], ...] | str:
        """Partition of the units of which equally many must stay, from all grouped convolutions they pass."""
        partition: tuple[tuple[int, ...], ...] = ()
        for port in ports:
            if port not in self.blocks:
                continue
            width = port.size // self.blocks[port]
            touched = [frozenset(c // width for c in unit[port]) for unit in units]
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
