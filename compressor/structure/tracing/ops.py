"""Watching a network run: every operation that has a weight, whatever the Python code around it looks like.

A dispatch mode sees convolutions, matrix products and embeddings with the tensors they work on. A weight is recognised
by its storage, so modules, functional calls, views and shared weights all look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

CONVOLUTIONS = {aten.convolution, aten._convolution}
PRODUCTS = {aten.mm: 0, aten.addmm: 1, aten.bmm: 0, aten.baddbmm: 1}


@dataclass(frozen=True)
class Port:
    """One side of a weight: the axis of a parameter on which the channels of an operation lie.

    Attributes:
        tensor: Name of the parameter or buffer.
        axis: The axis.
        size: Number of coordinates; on the grouped side of a grouped convolution the channels of all groups.
        conv_groups: Convolution groups that share the coordinates of the axis, else 1.
    """

    tensor: str
    axis: int
    size: int
    conv_groups: int = 1


@dataclass(frozen=True)
class Lane:
    """The channels of one operation on one side: channel i is coordinate `coordinates[i]` of `port`."""

    port: Port
    coordinates: tuple[int, ...]


@dataclass
class WeightCall:
    """One call of an operation that has a weight.

    Attributes:
        weight: Name of the parameter that is the weight.
        input: What the operation mixes; None for an embedding.
        output: What it returns; None until it has run.
        operand: The weight as the operation got it.
        bias: Name of the parameter that is the bias, if any.
        input_axis, output_axis: The axes of input and output that hold the channels.
        source: The channels that it makes.
        sink: The channels that it mixes; for a depthwise convolution those that it passes on.
        input_position: Where the input stands among the arguments of the operation.
        depthwise: True for a convolution that passes every channel on by itself.
        groups: Groups of a convolution, else 1.
        settings: Stride, padding, dilation, transposed, output padding of a convolution.
        outputs_first: True where the rows of the operand are the outputs.
    """

    weight: str
    input: Tensor | None
    operand: Tensor
    bias: str | None
    input_axis: int
    output_axis: int
    source: Lane | None
    sink: Lane | None
    input_position: int = 0
    depthwise: bool = False
    groups: int = 1
    settings: tuple[Any, ...] = ()
    outputs_first: bool = False
    output: Tensor | None = None

    @property
    def layer(self) -> str:
        """Name of the module that owns the weight."""
        return self.weight.rpartition(".")[0]

    @property
    def is_convolution(self) -> bool:
        return bool(self.settings)

    @property
    def positions(self) -> int:
        """How often the call uses each element of its weight; 0 for an embedding."""
        if self.input is None or self.output is None:
            return 0
        if self.is_convolution:
            places = self.input if self.settings[3] else self.output
            return places.shape[0] * places[0, 0].numel()
        return self.input.numel() // self.input.shape[self.input_axis]


class TensorNames:
    """Finds the parameter or buffer that a tensor is, or is a view of."""

    def __init__(self, model: nn.Module) -> None:
        self._by_storage: dict[int, list[tuple[str, Tensor]]] = {}
        named = [*model.named_parameters(), *model.named_buffers()]
        for name, tensor in named:
            if tensor.numel():
                self._by_storage.setdefault(tensor.untyped_storage().data_ptr(), []).append((name, tensor))
        self.parameters = {name for name, parameter in model.named_parameters() if parameter.numel()}
        self.tensors = dict(named)

    def find(self, view: Any) -> tuple[str, Tensor] | None:
        """Name and tensor of which `view` is a view, or None."""
        if not isinstance(view, Tensor) or not view.numel():
            return None
        for name, tensor in self._by_storage.get(view.untyped_storage().data_ptr(), ()):
            start = tensor.storage_offset()
            if start <= view.storage_offset() < start + tensor.numel():
                return name, tensor
        return None

    def lane(self, view: Tensor, axis: int) -> Lane | None:
        """The axis of the parameter that `axis` of its view runs along, or None where it is not a single one."""
        found = self.find(view)
        if found is None:
            return None
        name, tensor = found
        start, step = int(view.storage_offset() - tensor.storage_offset()), view.stride(axis)
        places = _unravel(start + step * np.arange(view.shape[axis]), tensor)
        axes = [a for a, along in enumerate(places) if (along != along[0]).any()]
        if not axes and view.shape[axis] == 1:
            axes = [a for a in range(tensor.dim()) if tensor.shape[a] == 1 or tensor.stride(a) == step][:1]
        if len(axes) != 1:
            return None
        port = Port(name, axes[0], tensor.shape[axes[0]])
        return Lane(port, tuple(places[axes[0]].tolist()))


def _unravel(offsets: NDArray[np.int64], tensor: Tensor) -> list[NDArray[np.int64]]:
    """For every axis of a tensor, where on it the elements lie that are so far from its first."""
    places = [np.zeros_like(offsets)] * tensor.dim()
    for axis in sorted(range(tensor.dim()), key=lambda a: (-tensor.stride()[a], tensor.shape[a] == 1)):
        if tensor.shape[axis] > 1 and tensor.stride(axis):
            places[axis], offsets = np.divmod(offsets, tensor.stride(axis))
    return places


class WeightReader:
    """Recognises operations with weights."""

    def __init__(self, names: TensorNames) -> None:
        self.names = names

    def read(self, func: Any, args: Sequence[Any]) -> WeightCall | None:
        """Describe the call if it is an operation on a parameter of the network, else return None."""
        packet = func.overloadpacket
        if packet in CONVOLUTIONS:
            return self._convolution(args)
        if packet in PRODUCTS:
            return self._product(args, PRODUCTS[packet])
        if packet is aten.linear:
            return self._linear(args)
        if packet is aten.embedding:
            return self._embedding(args)
        return None

    def _bias(self, bias: Any, size: int) -> str | None:
        found = self.names.find(bias)
        return found[0] if found and found[1].dim() == 1 and bias.numel() >= 1 and found[1].numel() == size else None

    def _convolution(self, args: Sequence[Any]) -> WeightCall | None:
        x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args[:9]
        found = self.names.find(weight)
        if found is None or found[1].shape != weight.shape:
            return None
        name = found[0]
        channels = x.shape[1]
        outputs = weight.shape[1] * groups if transposed else weight.shape[0]
        depthwise = groups > 1 and groups == channels
        in_axis, out_axis = (0, 1) if transposed else (1, 0)
        shared_in, shared_out = (1, groups) if transposed else (groups, 1)
        source = Lane(Port(name, out_axis, outputs, shared_out), tuple(range(outputs)))
        sink = Lane(Port(name, in_axis, channels, shared_in), tuple(range(channels)))
        if depthwise:
            rows = weight.shape[0]
            source = sink = Lane(Port(name, 0, rows), tuple(range(0, rows, rows // channels)))
        settings = (tuple(stride), tuple(padding), tuple(dilation), transposed, tuple(output_padding))
        return WeightCall(
            name, x, weight, self._bias(bias, outputs), 1, 1, source, sink, 0, depthwise, groups, settings
        )

    def _product(self, args: Sequence[Any], first: int) -> WeightCall | None:
        left, right = args[first], args[first + 1]
        bias = args[0] if first else None
        if self._is_weight(
            right
        ):  # where both are parameters, the one on the right is what `F.linear` makes of a weight
            sink, source = self.names.lane(right, -2), self.names.lane(right, -1)
            return self._matrix_call(left, right, bias, -1, sink, source, first)
        if self._is_weight(left):
            sink, source = self.names.lane(left, -1), self.names.lane(left, -2)
            return self._matrix_call(right, left, bias, -2, sink, source, first + 1)
        return None

    def _is_weight(self, operand: Tensor) -> bool:
        batched = operand.dim() == 3 and operand.shape[0] > 1 and operand.stride(0) != 0
        return not batched and self.names.find(operand) is not None

    def _linear(self, args: Sequence[Any]) -> WeightCall | None:
        x, weight = args[0], args[1]
        if self.names.find(weight) is None:
            return None
        bias = args[2] if len(args) > 2 else None
        call = self._matrix_call(x, weight, bias, -1, self.names.lane(weight, 1), self.names.lane(weight, 0), 0)
        return None if call is None else replace(call, outputs_first=True)

    def _matrix_call(
        self, x: Tensor, weight: Tensor, bias: Any, axis: int, sink: Lane | None, source: Lane | None, position: int
    ) -> WeightCall | None:
        found = self.names.find(weight)
        if found is None or sink is None or source is None:
            return None
        return WeightCall(
            found[0], x, weight, self._bias(bias, len(source.coordinates)), axis, axis, source, sink, position
        )

    def _embedding(self, args: Sequence[Any]) -> WeightCall | None:
        found = self.names.find(args[0])
        if found is None:
            return None
        return WeightCall(found[0], None, args[0], None, -1, -1, self.names.lane(args[0], 1), None)


class Watch(TorchDispatchMode):
    """Calls `visit(call)` at every operation with a weight.

    Args:
        model: The network.
        visit: Called after the operation; or before it, when its output is None yet.
        before: Which of the two.
    """

    def __init__(self, model: nn.Module, visit: Callable[[WeightCall], object], *, before: bool = False) -> None:
        super().__init__()
        self._reader = WeightReader(TensorNames(model))
        self._visit, self._before = visit, before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = self._reader.read(func, args)
        if call is not None and self._before:
            self._visit(call)
        output = func(*args, **(kwargs or {}))
        if call is not None and not self._before:
            call.output = output
            self._visit(call)
        return output


def used_weights(model: nn.Module, inputs: tuple[Any, ...]) -> list[tuple[str, int]]:
    """Every operation with a weight in the order of the data: the weight, and how often it uses each element of it."""
    uses: list[tuple[str, int]] = []
    with Watch(model, lambda call: uses.append((call.weight, call.positions))):
        model(*inputs)
    return uses
