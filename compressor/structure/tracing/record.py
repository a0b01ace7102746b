"""Mark and see: couplings between channels, found by watching NaN travel through the network.

NaN is put into some output channels of operations with weights, and one looks which input channels of which other
weights turn NaN. A mark is cleaned at every operation with a weight, so it travels exactly one hop; since the outputs
of these operations never depend on the marks, they are computed once and replayed, and a pass costs only what lies
between them.

Layer and group-of-one norms are made transparent, otherwise they would spread every mark over all channels.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compressor.errors import InputError
from compressor.structure.tracing.ops import CONVOLUTIONS, Lane, Port, TensorNames, WeightCall, WeightReader, aten

BATCH_NORMS = {
    aten.native_batch_norm,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_no_training,
    aten.cudnn_batch_norm,
    aten.batch_norm,
}
CONCATENATIONS = {aten.cat, aten.stack}
AVERAGES = {aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d}
SUMS = {aten.add, aten.add_, aten.sub, aten.sub_}
ZERO_KEEPING = {
    *(
        aten.mul,
        aten.mul_,
        aten.div,
        aten.div_,
        aten.neg,
        aten.native_dropout,
        aten.dropout,
        aten.clone,
        aten.contiguous,
    ),
    *(aten.relu, aten.relu_, aten.silu, aten.silu_, aten.gelu, aten.hardswish, aten.hardswish_, aten.leaky_relu),
    *(aten.view, aten._unsafe_view, aten.reshape, aten.permute, aten.transpose, aten.t, aten.squeeze, aten.unsqueeze),
    *(aten.alias, aten.detach, aten.expand, aten.slice, aten.roll, aten._to_copy, *BATCH_NORMS),
}
"""What makes zeros of zeros; a batch norm does where its scale and its shift are zero."""
NORM_PREFIX = "normalised by "
COMPUTED_PREFIX = "read with computed weights by "
BARE = "!"
"""How the names of places end where a norm without weights reads."""

Pattern = Callable[["Source"], Tensor | None]


@dataclass(frozen=True)
class Source:
    """Channels that can be marked: the output of a call, or the coordinates on one axis of a raw tensor."""

    index: int
    lane: Lane
    call: int | None = None

    @property
    def size(self) -> int:
        return len(self.lane.coordinates)


@dataclass
class Event:
    """What happens at one operation of the recorded run.

    Attributes:
        func: The operation, to notice a run that takes another way.
        call: Number among the operations with weights; None for others.
        weight: The call itself, without its tensors.
        output: The clean output of an operation with a weight, and of a convolution whose weight is computed.
        sinks: The lanes on which marks are looked for, with the axis of the tensor they lie on.
        scalar: What the network's code read off a tensor: it must not see marks, which could send it another way.
        transparent: True for a norm over channels.
        pads: Axes that it pads by a constant.
        joint: True where it puts tensors together other than element by element, or something beside one.
        module: The module that was running.
    """

    func: Any
    call: int | None = None
    weight: WeightCall | None = None
    output: Tensor | None = None
    sinks: list[tuple[int, int, Lane]] = field(default_factory=list)
    scalar: Any = None
    transparent: bool = False
    pads: tuple[int, ...] = ()
    joint: bool = False
    module: str = ""


@dataclass
class Record:
    """A recorded run: its events by the number of the operation, the sources, and the lanes where marks are seen.

    Weights are `summed` where what they make is added to something, as it is or after what makes zeros of zeros, and
    `otherwise_used` where something else reads it.
    """

    events: dict[int, Event] = field(default_factory=dict)
    calls: list[WeightCall] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    sinks: list[Lane] = field(default_factory=list)
    sink_calls: dict[int, int] = field(default_factory=dict)
    norms: dict[str, str] = field(default_factory=dict)
    summed: set[str] = field(default_factory=set)
    otherwise_used: set[str] = field(default_factory=set)


class Recorder(TorchDispatchMode):
    """Runs the network once and writes down where marks can be set and seen."""

    def __init__(self, names: TensorNames, modules: list[str]) -> None:
        super().__init__()
        self.record = Record()
        self._names = names
        self._reader = WeightReader(names)
        self._count = 0
        self._modules = modules
        self._made_by: dict[int, tuple[weakref.ref[Tensor], WeightCall]] = {}
        self._zero_with: dict[int, tuple[weakref.ref[Tensor], str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        number, self._count = self._count, self._count + 1
        event = Event(func, module=self._modules[-1] if self._modules else "")
        call = self._reader.read(func, args)
        self._follow_zeros(func, args, output)
        if call is not None:
            self._weight(event, call, output)
            self._zero_with[id(output)] = (weakref.ref(output), call.weight)
        elif func.overloadpacket in CONVOLUTIONS:
            event.output = output.clone()
            self._hold(event, COMPUTED_PREFIX, str(number), args[0], 1)
        elif func.overloadpacket in BATCH_NORMS:
            self._batch_norm(event, args)
        elif is_channel_norm(func, args):
            self._channel_norm(event, args, number)
        elif func.overloadpacket is aten.native_group_norm:
            self._observe(event, args[1:3], 1)
        elif torch.Tag.pointwise in func.tags or func.overloadpacket is aten._prelu_kernel:
            self._pointwise(event, args, output)
        elif func.overloadpacket is aten._local_scalar_dense:
            event.scalar = output
        elif func.overloadpacket is aten.constant_pad_nd:
            event.pads = tuple(axis for axis, amount in _padded_axes(args[0].dim(), args[1]) if amount)
        event.joint = bool(event.pads) or (call is None and self._joins(func, args))
        if event.sinks or event.call is not None or event.transparent or event.joint or event.scalar is not None:
            self.record.events[number] = event
        return output

    def _follow_zeros(self, func: Any, args: Sequence[Any], output: Any) -> None:
        """Note which layers are read by sums alone, directly or through what makes zeros of zeros."""
        known = ((t, self._zero_with.get(id(t))) for t in tree_leaves(args) if isinstance(t, Tensor))
        weights = {entry[1] for tensor, entry in known if entry is not None and entry[0]() is tensor}
        if not weights:
            return
        packet, first = func.overloadpacket, output[0] if isinstance(output, tuple) else output
        if packet in SUMS and not any(self._names.find(operand) for operand in args[:2]):
            self.record.summed |= weights
            self._zero_with.pop(id(first), None)  # a sum in place is zero no more
        elif packet in ZERO_KEEPING and isinstance(first, Tensor) and len(weights) == 1:
            self._zero_with[id(first)] = (weakref.ref(first), weights.pop())
        else:
            self.record.otherwise_used |= weights

    def _joins(self, func: Any, args: Sequence[Any]) -> bool:
        """True where the places of several tensors, and not of parameters alone, become those of one, or an area is
        averaged with the zeros around it.
        """
        if func.overloadpacket in CONCATENATIONS:
            return True
        if func.overloadpacket in AVERAGES:
            return len(args) > 3 and any(args[3]) and (len(args) < 6 or bool(args[5]))
        made = [t for t in _floating(args) if self._names.find(t) is None]
        return len(made) > 1 and torch.Tag.pointwise not in func.tags

    def _weight(self, event: Event, call: WeightCall, output: Tensor) -> None:
        record = self.record
        event.call, event.output = len(record.calls), output.clone()
        event.weight = call
        self._made_by[id(output)] = (weakref.ref(output), call)
        call.input = call.output = None
        record.calls.append(call)
        if call.source is not None and not call.depthwise:
            record.sources.append(Source(len(record.sources), call.source, event.call))
        if call.sink is not None:
            sink = self._sink(event, call.input_axis, call.sink)
            if not call.depthwise:
                record.sink_calls[sink] = event.call

    def _sink(self, event: Event, axis: int, lane: Lane) -> int:
        number = len(self.record.sinks)
        self.record.sinks.append(lane)
        event.sinks.append((number, axis, lane))
        return number

    def _observe(self, event: Event, tensors: Sequence[Any], axis: int) -> None:
        for tensor in tensors:
            lane = self._names.lane(tensor, 0) if isinstance(tensor, Tensor) and tensor.dim() == 1 else None
            if lane is not None:
                self._sink(event, axis, lane)

    def _batch_norm(self, event: Event, args: Sequence[Any]) -> None:
        self._observe(event, args[1:5], 1)
        made = self._made_by.get(id(args[0]))
        mean = self._names.find(args[3])
        if made is not None and made[0]() is args[0] and mean is not None:
            self.record.norms[made[1].layer] = mean[0].rpartition(".")[0]

    def _channel_norm(self, event: Event, args: Sequence[Any], number: int) -> None:
        event.transparent = True
        grouped = event.func.overloadpacket is aten.native_group_norm
        axis, tensors = (1, args[1:3]) if grouped else (-1, args[2:4])
        self._observe(event, tensors, axis)
        bare = "" if self._names.find(tensors[0]) else BARE
        self._hold(event, NORM_PREFIX, f"{number}{bare}", args[0], axis)

    def _hold(self, event: Event, prefix: str, number: str, tensor: Tensor, axis: int) -> None:
        """Look for marks on channels that cannot be cut, because of what reads them here."""
        size = tensor.shape[axis]
        self._sink(
            event, axis, Lane(Port(f"{prefix}{event.module or 'forward()'}#{number}", 0, size), tuple(range(size)))
        )

    def _pointwise(self, event: Event, args: Sequence[Any], output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        for operand in tree_leaves(args):
            if self._names.find(operand) is None or operand.dim() > output.dim():
                continue
            for axis in range(operand.dim()):
                lane = self._names.lane(operand, axis) if operand.shape[axis] > 1 and operand.stride(axis) else None
                if lane is not None:
                    self._sink(event, axis - operand.dim(), lane)


def has_marks(tensor: Tensor) -> bool:
    """True where some element is NaN (a sum can become NaN by infinities only where there are both signs of them)."""
    return bool(torch.isnan(tensor.sum())) and bool(torch.isnan(tensor).any())


def is_channel_norm(func: Any, args: Sequence[Any]) -> bool:
    """True for layer norm over the last axis, and for group norm with a single group."""
    if func.overloadpacket is aten.native_layer_norm:
        return len(args[1]) == 1
    return bool(func.overloadpacket is aten.native_group_norm and args[6] == 1)


class Replay(TorchDispatchMode):
    """Runs the network again with marks, and collects where they are seen."""

    def __init__(self, record: Record, pattern: Pattern | None, *, joints: bool = True) -> None:
        super().__init__()
        self.seen: dict[int, Tensor] = {}
        self.padded: dict[int, bool] = {}
        self.joints: set[tuple[int, int]] = set()
        self._record, self._count, self._looks_at_joints = record, 0, joints
        self._marks = {s.call: pattern(s) for s in record.sources if s.call is not None} if pattern else {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        number, self._count = self._count, self._count + 1
        event = self._record.events.get(number)
        if event is None:
            return func(*args, **(kwargs or {}))
        if event.func is not func:
            raise InputError(
                f"the network's control flow changes between runs ({event.func} became {func})",
                where=event.module,
                cure="make forward() deterministic in evaluation mode",
            )
        if event.scalar is not None:
            return event.scalar
        if event.joint and self._looks_at_joints:
            self.joints |= {(number, i) for i, tensor in enumerate(_floating(args)) if has_marks(tensor)}
        if event.weight is not None:
            return self._weight(number, event, args)
        if event.output is not None:
            return self._computed(event, args)
        if event.pads:
            self._pad(number, event, args[0])
        transparent = event.transparent and has_marks(args[0])
        output = self._transparent(func, args, kwargs) if transparent else func(*args, **(kwargs or {}))
        self._see(event, output[0] if isinstance(output, tuple) else output)
        return output

    def _see(self, event: Event, tensor: Tensor) -> None:
        if has_marks(tensor):
            marked = torch.isnan(tensor)
            for sink, axis, _ in event.sinks:
                others = [a for a in range(tensor.dim()) if a != axis % tensor.dim()]
                self.seen[sink] = marked.any(dim=others) if others else marked

    def _pad(self, number: int, event: Event, tensor: Tensor) -> None:
        """Note a padding that marks pass, and whether it pads the axis on which they tell channels apart."""
        if has_marks(tensor):
            marked = torch.isnan(tensor)
            along = [marked.any(dim=[a for a in range(tensor.dim()) if a != axis]) for axis in event.pads]
            self.padded[number] = any(not bool(seen.all()) for seen in along)

    def _weight(self, number: int, event: Event, args: Sequence[Any]) -> Tensor:
        call, clean = event.weight, event.output
        assert call is not None and clean is not None
        output = clean.clone()
        if call.sink is not None:
            self._see(event, args[call.input_position])
        if call.depthwise:
            seen = self.seen.get(event.sinks[0][0])
            if seen is not None:
                self.joints.add((number, 0))
                _fill(output, 1, seen.repeat_interleave(output.shape[1] // seen.numel()))
        for other in args[:3]:
            if isinstance(other, Tensor) and other.dim() == 1 and has_marks(other):
                _fill(output, call.output_axis, torch.isnan(other))
        mark = self._marks.get(event.call) if event.call is not None else None
        if mark is not None:
            _fill(output, call.output_axis, mark)
        return output

    def _computed(self, event: Event, args: Sequence[Any]) -> Tensor:
        """A convolution whose weight is no tensor of the network: what marks the weight, or the bias, goes on."""
        self._see(event, args[0])
        if not any(isinstance(t, Tensor) and has_marks(t) for t in args[1:3]):
            assert event.output is not None
            return event.output.clone()
        return event.func(torch.nan_to_num(args[0]), *args[1:])

    @staticmethod
    def _transparent(func: Any, args: Sequence[Any], kwargs: Any) -> Any:
        marked = torch.isnan(args[0])
        output = func(torch.where(marked, torch.zeros_like(args[0]), args[0]), *args[1:], **(kwargs or {}))
        output[0][marked] = torch.nan
        return output


def _padded_axes(dims: int, amounts: Sequence[int]) -> list[tuple[int, int]]:
    pairs = zip(amounts[::2], amounts[1::2], strict=True)
    return [(dims - 1 - i, abs(low) + abs(high)) for i, (low, high) in enumerate(pairs)]


def _fill(tensor: Tensor, axis: int, mask: Tensor) -> None:
    shape = [1] * tensor.dim()
    shape[axis] = -1
    tensor.masked_fill_(mask.reshape(shape), torch.nan)


@contextmanager
def tracking(model: nn.Module) -> Iterator[list[str]]:
    """Yields the stack of the names of the modules that are running."""
    stack: list[str] = []
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
        handles.append(module.register_forward_hook(lambda *_: stack.pop() and None))
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


def marked_outputs(outputs: Any) -> set[int]:
    """The numbers of the tensors that a mark reached among all that the network returns."""
    return {n for n, tensor in enumerate(_floating(_leaves(outputs))) if bool(torch.isnan(tensor).any())}


def _floating(values: Any) -> list[Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, Tensor) and t.is_floating_point()]


def _leaves(outputs: Any) -> list[Any]:
    leaves = tree_leaves(outputs)
    for item in list(leaves):
        if not isinstance(item, Tensor) and hasattr(item, "__dict__"):
            leaves += tree_leaves(vars(item))
    return leaves
