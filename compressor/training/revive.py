"""Units that hardly ever fire are brought back before training (after Liu et al., TMLR 2023, Activate-while-Pruning).

The paper lets some negative weights return. Here, where units are whole channels, the bias of a unit is raised until
its rectifier lets enough through for gradients to reach it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressor.support.modules import evaluating
from compressor.training.history import Activity

RECTIFIERS = {F.relu, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


def revive(model: nn.Module, inputs: Sequence[Tensor], least: float) -> list[Activity]:
    """Raise biases in place until every unit before a rectifier fires at a share of the positions.

    A layer sees what the layers before it deliver after they were raised. A unit that is constant stays as it is.

    Args:
        model: The network; normalisations use their running statistics.
        inputs: One batch, (batch, ...) each.
        least: Share of images and places at which a unit shall fire, 0 to 1.
    """
    found: dict[str, Activity] = {}

    def visit(name: str, layer: nn.Module, output: Tensor) -> Tensor:
        if name in found:
            return output
        axis = -1 if isinstance(layer, nn.Linear) else 1
        values = output.movedim(axis, 0).flatten(1)
        lifts, rare = _lifts(values, least)
        layer.get_parameter("bias").add_(lifts)
        found[name] = Activity(name, len(values), int((values <= 0).all(1).sum()), int(rare.sum()))
        return (output.movedim(axis, -1) + lifts).movedim(-1, axis)

    with evaluating(model), _Rectified(model, visit):
        model(*inputs)
    return list(found.values())


def _lifts(values: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """What to add to each unit (units, values), and which units (units,) fire too rarely."""
    wanted = math.ceil(least * values.shape[1])
    rare = (values > 0).sum(1) < wanted
    lifts = torch.zeros(len(values), device=values.device)
    lifts[rare] = -values[rare].topk(min(wanted + 1, values.shape[1]), dim=1).values[:, -1]
    return lifts, rare


class _Rectified(TorchFunctionMode):
    """Calls back wherever the output of a layer that has a bias goes, unchanged, into a rectifier."""

    def __init__(self, model: nn.Module, visit: Callable[[str, nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self._visit = visit
        self._made: tuple[str, nn.Module, Tensor, int] | None = None
        named = model.named_modules()
        self._handles = [m.register_forward_hook(self._note(name)) for name, m in named if _has_bias(m)]

    def _note(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._made = name, module, output, output._version

        return note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._made and _rectifies(func, kwargs) and args[0] is self._made[2]:
            name, layer, output, version = self._made
            if output._version == version:  # nothing was added to it in place
                args = (self._visit(name, layer, output), *args[1:])
        return func(*args, **kwargs)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()


def _rectifies(func: Any, kwargs: dict[str, Any]) -> bool:
    return func in RECTIFIERS or (func is F.hardtanh and kwargs.get("min_val") == 0)  # what nn.ReLU6 calls


def _has_bias(module: nn.Module) -> bool:
    kinds = nn.Linear | nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm
    return isinstance(module, kinds) and isinstance(module.bias, nn.Parameter)
