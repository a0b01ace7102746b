"""Auxiliary heads: layers that run only where the modules that hold them believe to be training."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def containers_training(model: nn.Module) -> Iterator[None]:
    """Training mode for the modules that contain others and hold no tensors; layers stay in evaluation mode."""
    chosen = [m for m in model.modules() if m._modules and not m._parameters and not m._buffers and not m.training]
    for module in chosen:
        module.training = True
    try:
        yield
    finally:
        for module in chosen:
            module.training = False


def runs_auxiliary(model: nn.Module, inputs: tuple[Any, ...], seen: Collection[str]) -> bool:
    """True where layers have not been seen, and the network runs when its containers believe to be training.

    Args:
        model: The network, in evaluation mode.
        inputs: What `model(*inputs)` takes.
        seen: The weights that were used so far.
    """
    if all(f"{name}.weight" in seen for name, module in model.named_modules() if _has_weight(module)):
        return False
    with containers_training(model):
        try:
            model(*inputs)
        except Exception:  # whatever the network's code raises: it asks for targets, or for larger pictures
            return False
    return True


def _has_weight(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return weight is not None and weight.dim() > 1
