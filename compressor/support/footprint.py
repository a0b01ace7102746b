"""How many bytes the tensors of a network take while it runs, counted in a pass over two inputs.

The count is that of shapes, the same on every machine, so that what is decided by it is reproducible. What the
operations use inside (`WORKSPACE`) does not show, and neither does what the allocator keeps.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compressor.support.batches import Batch, cut, part_of, size_of, sizes_of, tensors_of
from compressor.support.modules import evaluating

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
        self._given = {id(storage): storage for storage in map(storage_of, given)}
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self._count(storage_of(leaf))
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
        run = partial(_forward, model)
    few = part_of(batch, 0, 2)
    with Gauge([*model.parameters(), *model.buffers(), *tensors_of(few)]) as gauge:
        run(few)
    return int(most * size_of(few) / max(1, gauge.peak))


def _forward(model: nn.Module, batch: Batch) -> None:
    with evaluating(model):
        model(*batch)


def storage_of(tensor: Tensor) -> torch.UntypedStorage:
    """The storage that a tensor lies in."""
    return tensor.untyped_storage()
