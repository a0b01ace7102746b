"""Auxiliary heads: layers that run only where the modules that hold them believe to be training."""

from __future__ import annotations

from collections.abc import Iterator
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


def runs_auxiliary(model: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """True where the network runs on these inputs when its containers believe to be training."""
    with containers_training(model):
        try:
            model(*inputs)
        except Exception:  # whatever the network's code raises: it asks for targets, or for larger pictures
            return False
    return True
