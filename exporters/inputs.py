"""Example inputs in the forms that users have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

ExampleInputs = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]


def as_call(example_inputs: ExampleInputs, model: nn.Module) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """The positional and keyword arguments of `model`, on its device. A mapping is passed by keyword."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if isinstance(example_inputs, Mapping):
        return (), {name: tensor.to(device) for name, tensor in example_inputs.items()}
    tensors = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    return tuple(tensor.to(device) for tensor in tensors), {}


def is_batched(tensor: Tensor, tensors: list[Tensor]) -> bool:
    """Whether the first dimension of `tensor` is the batch: it is as long as that of the first input."""
    return tensor.ndim > 0 and tensors[0].ndim > 0 and len(tensor) == len(tensors[0])


def take(tensor: Tensor, batch: int) -> Tensor:
    """The first `batch` items of `tensor`, repeated from the start where it has fewer."""
    return tensor[torch.arange(batch, device=tensor.device) % len(tensor)]


def leaves(outputs: Any) -> list[Tensor]:
    """The tensors of a (nested) tuple, list or dict of outputs, in the order of the exported file."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training
