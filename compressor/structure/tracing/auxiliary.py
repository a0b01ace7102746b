"""What runs only where the modules that hold others believe to be training: auxiliary heads, further norms, scales."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compressor.structure.tensors import duplicate
from compressor.structure.tracing.ops import TensorNames


@contextmanager
def containers_training(model: nn.Module) -> Iterator[None]:
    """Training mode for the modules that contain others; layers stay in evaluation mode."""
    chosen = [m for m in model.modules() if _is_container(m) and not m.training]
    for module in chosen:
        module.training = True
    try:
        yield
    finally:
        for module in chosen:
            module.training = False


def _is_container(module: nn.Module) -> bool:
    """True for modules with modules inside, but for layers of torch (attention) and norms that have some."""
    layer = type(module).__module__.startswith("torch.nn") and (module._parameters or module._buffers)
    return bool(module._modules) and not layer and not isinstance(module, _NormBase)


def runs_auxiliary(model: nn.Module, inputs: tuple[Any, ...], seen: Collection[str]) -> bool:
    """True where parameters have not been seen, and are used when the containers believe to be training.

    Args:
        model: The network, in evaluation mode.
        inputs: What `model(*inputs)` takes.
        seen: The parameters that were used so far.
    """
    unseen = TensorNames(model).parameters.difference(seen)
    if not unseen:
        return False
    spare = duplicate(model)  # in training, a forward pass may change weights
    with containers_training(spare), Touched(TensorNames(spare)) as touched:
        try:
            spare(*inputs)
        except Exception:  # whatever the network's code raises: it asks for targets, or for larger pictures
            return False
    return not unseen.isdisjoint(touched.names)


class Touched(TorchDispatchMode):
    """Collects the names of all tensors of a network that operations take."""

    def __init__(self, tensors: TensorNames) -> None:
        super().__init__()
        self.names: set[str] = set()
        self._tensors = tensors

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = (self._tensors.find(value) for value in tree_leaves((args, kwargs)))
        self.names |= {match[0] for match in found if match is not None}
        return func(*args, **(kwargs or {}))
