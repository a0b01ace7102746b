"""What a module costs: parameters, multiply-adds of one input, bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.support.modules import evaluating


@dataclass(frozen=True)
class Cost:
    """The cost of a module.

    Attributes:
        params: Number of elements of all parameters; shared ones count once.
        macs: Multiply-adds of one input: convolutions, matrix products and attention.
        bytes: Bytes of all parameters and buffers.
    """

    params: int
    macs: int
    bytes: int


def measure_cost(model: nn.Module, example_inputs: Tensor | tuple[Tensor, ...]) -> Cost:
    """Measure `model`, which is left as it was.

    Args:
        model: Any module.
        example_inputs: What `model` takes: one tensor, or a tuple of them; the first axis is the batch.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    counter = FlopCounterMode(display=False)
    with evaluating(model), _frozen(model), counter:
        model(*inputs)
    macs = counter.get_total_flops() // 2 // len(inputs[0])
    params = sum(p.numel() for p in model.parameters())
    size = sum(t.numel() * t.element_size() for t in chain(model.parameters(), model.buffers()))
    return Cost(params, macs, size)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for gradients: the counter puts hooks on those that do, and fails on views of them."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
