"""How many bytes the tensors of a network take while it runs, counted in a pass over two inputs.

The count is that of shapes, the same on every machine, so that what is decided by it is reproducible. What the
operations use inside (`WORKSPACE`) does not show, and neither does what the allocator keeps.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compressor.batches import Batch, cut, part_of, size_of, sizes_of, tensors_of
from compressor.structure.watch import Watch, WeightCall, evaluating

PASS_BYTES = 2**29
"""Tensors of one forward or backward pass, at most: larger batches are cut into parts."""
WORKSPACE = 2.0
"""A pass takes up to this multiple of its tensors, with copies in other layouts that convolutions make inside."""


class Gauge(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make and that are still alive.

    Args:
        given: Tensors that are not counted, such as weights and inputs.

    Attributes:
        live: Bytes alive now.
        peak: The most that were alive.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._given = {id(storage): storage for storage in map(_storage, given)}
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self._count(_storage(leaf))
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._given or key in self._known:
            return

        def gone(_: object) -> None:
            del self._known[key]
            self.live -= size

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


@dataclass(frozen=True)
class Footprint:
    """Bytes for each input of a forward pass.

    Attributes:
        inputs: The input itself.
        peak: The most that all tensors that the pass makes take at a time.
        calls: The operations with a watched weight in the order of the data, without what ran through them.
        positions: How often each of them uses an element of its weight.
        held: What is alive behind each of them, without the input.
        output: What of that is the output of the operation.
        last_use: The first watched operation behind which the inputs are not read any more.
    """

    inputs: float
    peak: float
    calls: tuple[WeightCall, ...]
    positions: tuple[float, ...]
    held: tuple[float, ...]
    output: tuple[float, ...]
    last_use: int


class _LastUse(TorchDispatchMode):
    """Notes when the storage of some tensors is read last."""

    def __init__(self, tensors: Iterable[Tensor], clock: Callable[[], int]) -> None:
        super().__init__()
        self._storages = {id(storage): storage for storage in map(_storage, tensors)}
        self._clock, self.time = clock, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(a, Tensor) and id(_storage(a)) in self._storages for a in tree_leaves((args, kwargs))):
            self.time = self._clock()
        return func(*args, **(kwargs or {}))


def footprint_of(model: nn.Module, batch: Batch, weights: Iterable[str] = ()) -> Footprint:
    """Run a network, in evaluation mode and without gradients, over the first inputs of a batch.

    Args:
        model: The network.
        batch: Inputs; two of them are used.
        weights: Names of the weights to watch.
    """
    watched, stops = set(weights), list[tuple[WeightCall, int, int, int]]()
    few = part_of(batch, 0, 2)
    tensors = tensors_of(few)
    gauge = Gauge([*model.parameters(), *model.buffers(), *tensors])
    last = _LastUse(tensors, lambda: len(stops))

    def visit(call: WeightCall) -> None:
        if call.weight in watched:
            output = 0 if call.output is None else call.output.nbytes
            stops.append((replace(call, input=None, output=None), call.positions, gauge.live, output))

    with evaluating(model), gauge, last, Watch(model, visit):
        model(*few)
    count = size_of(few)
    return Footprint(
        inputs=sum(tensor.nbytes for tensor in tensors) / count,
        peak=gauge.peak / count,
        calls=tuple(call for call, *_ in stops),
        positions=tuple(positions / count for _, positions, _, _ in stops),
        held=tuple(live / count for _, _, live, _ in stops),
        output=tuple(output / count for *_, output in stops),
        last_use=last.time,
    )


def fitting(model: nn.Module, batches: Sequence[Batch], most: float = PASS_BYTES) -> Sequence[Batch]:
    """The batches as they are where a forward pass over the largest takes no more than `most` bytes, else in parts."""
    sizes = sizes_of(batches)
    if not sizes:
        return batches
    inputs = inputs_in_a_pass(model, batches[0], most)
    return batches if max(sizes) <= inputs else cut(batches, inputs)


def inputs_in_a_pass(
    model: nn.Module, batch: Batch, most: float = PASS_BYTES, run: Callable[[Batch], object] | None = None
) -> int:
    """How many inputs such as those of a batch a pass can take without exceeding `most` bytes on the CPU.

    Args:
        model: The network.
        batch: Inputs; two of them are used.
        most: Bytes that the tensors of a pass take, at most.
        run: What is done with a batch; a forward pass without gradients by default.
    """
    if any(tensor.device.type != "cpu" for tensor in tensors_of(batch)):
        return sys.maxsize
    if run is None:
        return int(most / max(1.0, footprint_of(model, batch).peak))
    few = part_of(batch, 0, 2)
    with Gauge([*model.parameters(), *model.buffers(), *tensors_of(few)]) as gauge:
        run(few)
    return int(most * size_of(few) / max(1, gauge.peak))


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()
