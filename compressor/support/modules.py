"""States of a module that are given back: training or not, and what it writes while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def remembering(model: nn.Module) -> Iterator[None]:
    """What a forward pass writes down (window sizes, caches, running statistics) is as before on leaving."""
    modules = list(model.modules())
    attributes = [{k: v for k, v in vars(m).items() if not k.startswith("_")} for m in modules]
    buffers = [(dict(m._buffers), set(m._non_persistent_buffers_set)) for m in modules]
    values = {buffer: buffer.clone() for buffer in model.buffers() if not buffer.is_meta}
    try:
        yield
    finally:
        for module, before, (own, passing) in zip(modules, attributes, buffers, strict=True):
            now = vars(module)
            for name in [k for k in now if not k.startswith("_") and k not in before]:
                del now[name]
            now.update(before)
            module._buffers.clear()
            module._buffers.update(own)
            module._non_persistent_buffers_set = passing
        restore(values)


def restore(values: Mapping[Tensor, Tensor]) -> None:
    """Give tensors the values that they had, where they have others now; those that were resized keep theirs."""
    with torch.no_grad():
        for tensor, value in values.items():
            if tensor.shape == value.shape and not torch.equal(tensor, value):
                tensor.copy_(value)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, attention as single operations; everything is restored."""
    modes = {module: module.training for module in model.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, training in modes.items():
            module.training = training


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module's training flag is what it was."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags.items():
            module.training = flag


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and the buffers of a network by their names; shared ones once, by their first name."""
    return dict([*model.named_parameters(), *model.named_buffers()])
