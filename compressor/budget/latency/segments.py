"""A network cut into segments: a layer with weights, and what runs between it and the next one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import onnx

from compressor.budget.costs.axes import Axis
from compressor.budget.latency.skeleton import Skeleton
from exporters.operators import Measured

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Segment:
    """A stretch of the graph.

    Attributes:
        layer: The node with weights that it begins with; empty before the first one.
        name: What the network calls that layer, where its weight tells.
        axes: The axes that its latency depends on: those of its own constants and of the next layer's input.
        weight: The axes of the layer's weight that can be cut.
    """

    layer: str
    name: str
    axes: tuple[Axis, ...]
    weight: tuple[Axis, ...]


class Segments:
    """The segments of a network in the order of the data, and which of its operators belong to which.

    Attributes:
        items: The segments.
        readers: The number of the first segment that reads a weight, by the weight's name.
        cuts: The axes of the weights that can be cut, by the weight's name and the axis' number.
        bytes: Of every weight where nothing is cut.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        graph = skeleton.file.graph
        weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
        cut: dict[str, list[Axis]] = {}
        for slot, axis in skeleton.axes.items():
            cut.setdefault(slot.owner, []).append(axis)
        nodes: list[list[onnx.NodeProto]] = [[]]
        self._place: dict[str, int] = {}
        for node in graph.node:
            if node.op_type in LAYERS and any(name in weights for name in node.input):
                nodes.append([])
            nodes[-1].append(node)
            self._place |= dict.fromkeys((node.name, *node.output), len(nodes) - 1)
        after = [*nodes[1:], []]
        self.items = [
            Segment(
                layer=own[0].name if number else "",
                name=_name(own[0], weights) if number else "",
                axes=_distinct([*_axes(own, cut), *_axes(following[:1], cut)]),
                weight=_distinct([axis for name in own[0].input if name in weights for axis in cut.get(name, [])])
                if number
                else (),
            )
            for number, (own, following) in enumerate(zip(nodes, after, strict=True))
        ]
        read = [(name, n) for n, own in enumerate(nodes) if n for name in own[0].input if name in weights]
        self.readers = dict(reversed(read))
        self.cuts = {
            (slot.owner, slot.index): axis
            for slot, axis in skeleton.axes.items()
            if slot.kind == "shape" and slot.owner in self.readers
        }
        self.bytes = {t.name: self._dense_bytes(t) for t in graph.initializer if t.name in self.readers}

    def _dense_bytes(self, tensor: onnx.TensorProto) -> float:
        lengths = dict(enumerate(tensor.dims)) | {
            n: axis.length({}) for (name, n), axis in self.cuts.items() if name == tensor.name
        }
        return prod(lengths.values()) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize

    def times(self, measured: Measured) -> tuple[list[float], list[int]]:
        """Microseconds and number of operators of every segment; what the runtime inserts goes with what it follows."""
        times, counts, place = [0.0] * len(self.items), [0] * len(self.items), 0
        for operator, us in measured.operators:
            place = self._find(operator.name, place)
            times[place] += us
            counts[place] += 1
        return times, counts

    def _find(self, name: str, before: int) -> int:
        plain = name.removesuffix("_nchwc")
        known = [self._place[part] for part in (plain, *plain.split()) if part in self._place]
        return known[0] if known else before


def _name(node: onnx.NodeProto, weights: set[str]) -> str:
    own = next((name for name in node.input if name in weights), "")
    return own.removesuffix(".weight") if own.endswith(".weight") else node.name


def _axes(nodes: list[onnx.NodeProto], cut: Mapping[str, list[Axis]]) -> list[Axis]:
    owners = [name for node in nodes for name in (node.name, *node.input)]
    return [axis for owner in owners for axis in cut.get(owner, [])]


def _distinct(axes: list[Axis]) -> tuple[Axis, ...]:
    """Each axis once, whatever its scale: proportional ones say the same."""
    return tuple({(axis.free, axis.owned): axis for axis in reversed(axes)}.values())[::-1]
