"""What a module costs: parameters, multiply-adds of one input, bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


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
    with _evaluating(model), _plain_attention(), torch.no_grad(), counter:
        model(*inputs)
    macs = counter.get_total_flops() // 2 // len(inputs[0])
    params = sum(p.numel() for p in model.parameters())
    size = sum(t.numel() * t.element_size() for t in chain(model.parameters(), model.buffers()))
    return Cost(params, macs, size)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep `nn.MultiheadAttention` off its fused operator, which the counter does not know."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
