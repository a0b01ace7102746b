"""What is alive behind each layer while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compressor.structure.tracing.ops import Watch, WeightCall
from compressor.support.batches import Batch, part_of, size_of, tensors_of
from compressor.support.footprint import Gauge, storage_of
from compressor.support.modules import evaluating


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
        self.storage_ofs = {id(storage): storage for storage in map(storage_of, tensors)}
        self._clock, self.time = clock, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(a, Tensor) and id(storage_of(a)) in self.storage_ofs for a in tree_leaves((args, kwargs))):
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
