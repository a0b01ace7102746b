"""From couplings to channel groups: what can be cut, what cannot, and why."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves, tree_map

from compressor.errors import InputError
from compressor.structure.couplings import Couplings, find_couplings, runs_auxiliary
from compressor.structure.groups import ChannelGroup, Groups, Role, Skipped, Slice
from compressor.structure.marks import COMPUTED_PREFIX, NORM_PREFIX
from compressor.structure.trial import failing_groups, vanishing_groups
from compressor.structure.watch import Port, Watch, evaluating, remembering

SMALL = 96
"""Pixels to a side at which networks are watched."""

Unit = dict[Port, tuple[int, ...]]


def find_groups(
    model: nn.Module, example_inputs: Tensor | tuple[Any, ...], *, keep: Sequence[str] = (), seconds: float = 120.0
) -> Groups:
    """Find the channel groups of a network by watching it run.

    Every group that is returned has passed a trial: some of its units were cut, in several ways, and the shrunk network
    computed what the masked one computes.

    Args:
        model: The network; it is left as it was.
        example_inputs: A tensor, or a tuple of what `model(*inputs)` takes. One example is enough.
        keep: Patterns (`classifier.*`) of layers that must stay as they are.
        seconds: Processor time for finding the couplings; layers for which it is not enough are skipped.

    Raises:
        InputError: A pattern matches no layer, or the network does not run twice in the same way.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    kept = _match(model, keep)
    with evaluating(model), remembering(model):
        uses = _uses(model, inputs)
        small = _smaller(model, inputs, list(uses))
        couplings = find_couplings(model, small, seconds=seconds)
    survey = _Survey(couplings, _owners(model))
    groups, skipped = survey.groups(kept)
    bad = failing_groups(model, groups, small, auxiliary=len(couplings.calls) > len(uses))
    good = [g for g in groups if g.name not in bad]
    branches = [g for g in good if couplings.passable_without({s.tensor for s in g.slices if s.role == "consumer"})]
    gone = vanishing_groups(model, branches, small)
    skipped += [Skipped(g.producers, bad[g.name]) for g in groups if g.name in bad]
    skipped += _unseen(model, couplings)
    batch = next((t.shape[0] for t in inputs if isinstance(t, Tensor) and t.dim()), 1)
    positions: Counter[str] = Counter()
    for weight, count in uses:
        positions[weight] += count
    calls = Counter(weight for weight, _ in uses)
    return Groups(
        tuple(replace(g, vanishes=g.name in gone) for g in good),
        tuple(_gather(skipped)),
        {name: count // batch for name, count in positions.items()},
        couplings.norms,
        frozenset(name for name, count in calls.items() if count > 1),
    )


def _uses(model: nn.Module, inputs: tuple[Any, ...]) -> list[tuple[str, int]]:
    """Every operation with a weight in the order of the data: the weight, and how often it uses each element of it."""
    uses: list[tuple[str, int]] = []
    with Watch(model, lambda call: uses.append((call.weight, call.positions))):
        model(*inputs)
    return uses


def _smaller(model: nn.Module, inputs: tuple[Any, ...], uses: list[tuple[str, int]]) -> tuple[Any, ...]:
    """Smaller pictures, where the network takes them and does the same with them: couplings depend on no size."""
    cropped = tree_map(_crop, inputs)
    if all(a is b for a, b in zip(tree_leaves(cropped), tree_leaves(inputs), strict=True)):
        return inputs
    try:
        with remembering(model):
            same = [weight for weight, _ in _uses(model, cropped)] == [weight for weight, _ in uses]
            same = same and (runs_auxiliary(model, cropped) or not runs_auxiliary(model, inputs))
    except Exception:
        return inputs
    return cropped if same else inputs


def _crop(value: Any) -> Any:
    large = isinstance(value, Tensor) and value.dim() >= 4 and min(value.shape[-2:]) > SMALL
    return value[..., :SMALL, :SMALL] if large else value


def _match(model: nn.Module, patterns: Sequence[str]) -> dict[str, str]:
    layers = [name for name, _ in model.named_modules() if name]
    kept: dict[str, str] = {}
    for pattern in patterns:
        hits = [n for n in layers if fnmatchcase(n, pattern)]
        if not hits:
            near = difflib.get_close_matches(pattern, layers, n=3, cutoff=0.3) or layers[:3]
            raise InputError(
                f"'{pattern}' matches no layer", where="compress.keep", cure=f"layers are called {', '.join(near)}"
            )
        kept |= dict.fromkeys(hits, pattern)
    return kept


def _owners(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The layers that a tensor belongs to, by its first name: several where it is shared."""
    owners: dict[int, dict[str, None]] = defaultdict(dict)
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        owners[id(tensor)][name.rpartition(".")[0]] = None
    return {name: tuple(owners[id(tensor)]) for name, tensor in named}


def _unseen(model: nn.Module, couplings: Couplings) -> list[Skipped]:
    """Layers of which no operation was recognised."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    seen = {id(tensors[call.weight]) for call in couplings.calls}
    computing = {p.tensor.removeprefix(COMPUTED_PREFIX).partition("#")[0] for p in couplings.ports}
    skipped = []
    for name, module in model.named_modules():
        if not isinstance(module, (_ConvNd, nn.Linear)) or id(module._parameters.get("weight")) in seen:
            continue
        computed = "weight" not in module._parameters or name in computing
        reason = "its weight is computed from other tensors" if computed else "it did not run as a layer with a weight"
        skipped.append(Skipped((name,), reason))
    return skipped


def _gather(skipped: Iterable[Skipped]) -> list[Skipped]:
    """One entry per reason, in the order of the first layer."""
    layers: dict[str, dict[str, None]] = defaultdict(dict)
    for item in skipped:
        layers[item.reason] |= dict.fromkeys(item.layers)
    return [Skipped(tuple(names), reason) for reason, names in layers.items()]


@dataclass(frozen=True)
class _Component:
    """Coordinates that are cut together: one unit, and why it may not be cut."""

    unit: Unit
    reason: str | None


class _Survey:
    """Sorts the connected components of the couplings into groups."""

    def __init__(self, couplings: Couplings, owners: dict[str, tuple[str, ...]]) -> None:
        self.couplings, self.owners = couplings, owners
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
        if norms:
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
        layer = lead.tensor.rpartition(".")[0]
        name = next(n for n in _names(layer, units[0][lead][0]) if n not in names)
        return ChannelGroup(name, len(units), slices, blocks)

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
