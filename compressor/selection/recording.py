"""A network with a gate on every unit of a group; only what depends on the gates is run again.

The network is recorded once as a graph of functional operations. For a group and a batch, what comes before the gates
is computed once, too; the rest is run for many settings of the gates at a time, mapped over them by `torch.vmap`,
wherever an operation has its batch dimension. What `vmap` cannot map is run for one setting after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.utils._pytree import tree_flatten, tree_unflatten

from compressor.errors import InputError
from compressor.structure.groups import ChannelGroup
from compressor.structure.tensors import duplicate
from compressor.structure.tracing.ops import TensorNames, WeightReader, aten
from compressor.support.batches import plain, tensors_of
from compressor.support.footprint import Gauge
from compressor.support.modules import evaluating

VIEWS = {aten.view.default, aten._unsafe_view.default}
SPREAD_BYTES = 2**28
"""Most memory for what single units contribute to the outputs of one operation on one batch."""


@dataclass(frozen=True)
class Reader:
    """An operation that mixes channels: its weight, and where on it each channel of its input lies."""

    weight: str
    position: int
    axis: int
    coordinates: tuple[int, ...]


Change = Callable[[fx.Node, tuple[Any, ...]], tuple[Any, ...]]


class Recording:
    """The operations of a network on a batch.

    Args:
        model: The network. Batch norms that follow a layer are folded into it.
        norms: The batch norm that follows a layer (`Groups.norms`).
        batch: Inputs; the recording holds for other batches of the same shape.

    Raises:
        InputError: what the network does depends on the values in the batch.
    """

    def __init__(self, model: nn.Module, norms: Mapping[str, str], batch: tuple[Any, ...]) -> None:
        folded = _folded(model, norms)
        with evaluating(folded):
            try:
                self.module = make_fx(torch.func.functionalize(lambda *inputs: self._outputs(folded(*inputs))))(*batch)
            except RuntimeError as error:
                raise InputError(
                    f"the network cannot be recorded: {error}",
                    where="compress.method",
                    cure="choose 'imitation', which needs no recording",
                ) from error
            self.module.graph.eliminate_dead_code()
            for node in self.module.graph.nodes:
                if node.target in VIEWS:  # mapped tensors have other strides
                    node.target = aten.reshape.default
            self.readers: dict[fx.Node, Reader] = {}
            reads = WeightReader(TensorNames(folded))

            def note(node: fx.Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
                call = reads.read(node.target, args) if isinstance(node.target, OpOverload) else None
                if call is not None and call.input is not None and call.sink is not None and not call.depthwise:
                    sink = call.sink.coordinates
                    self.readers[node] = Reader(call.weight, call.input_position, call.input_axis, sink)
                return args

            self.nodes = [node for node in self.module.graph.nodes if node.op != "placeholder"]
            with Gauge([*folded.parameters(), *folded.buffers(), *tensors_of(batch)]) as gauge:
                self.run(self.nodes, self._inputs(batch), change=note)
            self.peak = gauge.peak

    def dense(self, batch: tuple[Any, ...]) -> list[Tensor]:
        """The floating-point outputs of the network."""
        done = self.run(self.nodes, self._inputs(batch))[self.nodes[-1]]
        return list(done)

    def restored(self, outputs: Sequence[Tensor]) -> Any:
        """Outputs in the nesting in which the network returns them; None where there is no floating-point tensor."""
        given = iter(outputs)
        return tree_unflatten([next(given) if there else None for there in self._floating], self._nesting)

    def _outputs(self, returned: Any) -> list[Tensor]:
        """The floating-point tensors that the network returns; their nesting is kept."""
        leaves, self._nesting = tree_flatten(plain(returned))
        self._floating = [isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves]
        return [leaf for leaf, there in zip(leaves, self._floating, strict=True) if there]

    def _inputs(self, batch: tuple[Any, ...]) -> dict[fx.Node, Any]:
        holders = [node for node in self.module.graph.nodes if node.op == "placeholder"]
        return dict(zip(holders, batch, strict=True))

    def run(
        self,
        nodes: Sequence[fx.Node],
        values: dict[fx.Node, Any],
        *,
        keep: Collection[fx.Node] = (),
        change: Change = lambda node, args: args,
    ) -> dict[fx.Node, Any]:
        """Run some operations.

        Args:
            nodes: The operations, in their order.
            values: Values of what comes before them; added to in place.
            keep: Operations whose values stay; those of others go when they are no longer needed.
            change: Called with each operation and its arguments; returns the arguments to use.
        """
        needed = Counter(source for node in nodes for source in node.all_input_nodes)
        for node in nodes:
            args = fx.node.map_arg(node.args, values.__getitem__)
            if node.op == "get_attr":
                values[node] = getattr(self.module, str(node.target))
            elif node.op == "output":
                values[node] = args[0]
            else:
                assert callable(node.target)
                values[node] = node.target(*change(node, args), **fx.node.map_arg(node.kwargs, values.__getitem__))
            for source in node.all_input_nodes:
                needed[source] -= 1
                if not needed[source] and source not in keep:
                    del values[source]
        return values

    def gated(self, group: ChannelGroup, batch: tuple[Any, ...], spread: int = SPREAD_BYTES) -> Gated:
        """The network on a batch, with gates on the units of a group, at the inputs of all its consumers.

        Args:
            group: The group.
            batch: Inputs, as many as were recorded.
            spread: Most memory for what single units contribute to the outputs of one operation.
        """
        owners = {node: owner for node, reader in self.readers.items() if (owner := _owner(reader, group)) is not None}
        tainted: set[fx.Node] = set()
        for node in self.nodes:
            if node in owners or not tainted.isdisjoint(node.all_input_nodes):
                tainted.add(node)
        border = {source for node in tainted for source in node.all_input_nodes} - tainted
        values = self.run(self._leading_to(border), self._inputs(batch), keep=border)
        rest = [n for n in self.nodes if n in tainted]
        return Gated(self, group, owners, rest, {n: values[n] for n in border}, min(spread, SPREAD_BYTES))

    def _leading_to(self, wanted: Collection[fx.Node]) -> list[fx.Node]:
        needed, nodes = set(wanted), []
        for node in reversed(self.nodes):
            if node in needed:
                nodes.append(node)
                needed.update(node.all_input_nodes)
        return nodes[::-1]


@dataclass
class Head:
    """The output of an operation that is affine in the gates.

    Attributes:
        constant: The output with all gates closed.
        parts: What each unit adds, (units, *output).
        sum: Of the parts of the units that are counted.
    """

    constant: Tensor
    parts: Tensor
    sum: Tensor


class Gated:
    """What of a network depends on the gates of one group, on one batch."""

    def __init__(
        self,
        recording: Recording,
        group: ChannelGroup,
        owners: dict[fx.Node, Tensor],
        nodes: list[fx.Node],
        values: dict[fx.Node, Any],
        spread: int,
    ) -> None:
        self._size, self._spread = group.size, spread
        self._recording, self._owners, self._values = recording, owners, values
        self._counts = torch.zeros(group.size)
        self._rest, self._heads = nodes, dict[fx.Node, Head]()
        self._mapped = False

    def map(self, function: Callable[[list[Tensor]], Tensor], counts: Tensor, units: Tensor, scale: float) -> Tensor:
        """Apply a function to the outputs for many settings: gates `scale * counts`, in each one unit once more.

        Args:
            function: Applied to the outputs for one setting.
            counts: The counts that all settings share, (units,).
            units: The unit that is counted once more in each setting, (settings,).
            scale: What a gate is for each count.

        Returns:
            The results, stacked.
        """
        self._prepare()
        self._count(counts)
        gates = scale * (counts + torch.eye(len(counts))[units])
        heads = [head.constant + scale * (head.sum + head.parts[units]) for head in self._heads.values()]
        return torch.vmap(lambda gate, heads: function(self._run(gate, heads)))(gates, heads)

    def run(self, gate: Tensor) -> list[Tensor]:
        """The outputs for one setting of the gates."""
        heads = [head.constant + torch.tensordot(gate, head.parts, 1) for head in self._heads.values()]
        return self._run(gate, heads)

    def _prepare(self) -> None:
        """Take apart the operations that are affine in the gates: that pays where there are many settings."""
        if not self._mapped:
            self._mapped = True
            self._heads = {node: head for node in self._owners if (head := self._head(node)) is not None}
            self._rest = [node for node in self._rest if node not in self._heads]

    def _run(self, gate: Tensor, heads: Sequence[Tensor]) -> list[Tensor]:
        values = {**self._values, **dict(zip(self._heads, heads, strict=True))}
        done = self._recording.run(self._rest, values, keep=self._values, change=self._gate(gate))
        return list(done[self._rest[-1]])

    def _count(self, counts: Tensor) -> None:
        """Bring the sums of the heads up to date."""
        change = counts - self._counts
        changed = change.nonzero()[:, 0]
        if len(changed):
            for head in self._heads.values():
                head.sum += torch.tensordot(change[changed], head.parts[changed], 1)
            self._counts = counts.clone()

    def _gate(self, gate: Tensor) -> Change:
        extended = torch.cat([gate, gate.new_ones(1)])

        def change(node: fx.Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
            if node not in self._owners:
                return args
            reader = self._recording.readers[node]
            shape = [1] * args[reader.position].dim()
            shape[reader.axis] = -1
            channels = extended[self._owners[node]].reshape(shape)
            return tuple(a * channels if i == reader.position else a for i, a in enumerate(args))

        return change

    def _head(self, node: fx.Node) -> Head | None:
        """The parts of an operation that reads the gated channels first.

        None where something gated comes before it, or where that would take too much memory.
        """
        if not all(source in self._values for source in node.all_input_nodes):
            return None
        args = fx.node.map_arg(node.args, self._values.__getitem__)

        def output(gate: Tensor) -> Tensor:
            assert callable(node.target)
            return node.target(*self._gate(gate)(node, args))

        constant = output(torch.zeros(self._size))
        if constant.numel() * constant.element_size() * self._size > self._spread:
            return None
        parts = torch.stack([output(gate) - constant for gate in torch.eye(self._size)])
        return Head(constant, parts, torch.zeros_like(constant))


def _owner(reader: Reader, group: ChannelGroup) -> Tensor | None:
    """The unit that each channel of the input belongs to, or the number of units where it is of another group."""
    units: dict[int, int] = {}
    for part in group.slices:
        if part.role == "consumer" and part.tensor == reader.weight:
            units.update({c: unit for unit, coordinates in enumerate(part.coordinates) for c in coordinates})
    if units.keys().isdisjoint(reader.coordinates):
        return None
    return torch.tensor([units.get(c, group.size) for c in reader.coordinates])


def _folded(model: nn.Module, norms: Mapping[str, str]) -> nn.Module:
    """A copy of the network with batch norms folded into the convolutions and linear layers before them."""
    model = duplicate(model).eval()
    for layer, norm in norms.items():
        module, following = model.get_submodule(layer), model.get_submodule(norm)
        if not isinstance(following, _BatchNorm) or following.running_mean is None:
            continue
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            model.set_submodule(layer, fuse_conv_bn_eval(module, following))
        elif isinstance(module, nn.Linear):
            model.set_submodule(layer, fuse_linear_bn_eval(module, following))
        else:
            continue
        model.set_submodule(norm, nn.Identity())
    return model
