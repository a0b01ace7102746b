"""A network of the collection, and what all of them are made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torchvision.ops import FrozenBatchNorm2d

Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """A network, what it takes, and what is known about its channel groups.

    Attributes:
        make: Builds the network.
        inputs: Draws what `model(*inputs)` takes.
        sizes: The groups that must be found, name to number of units; None where it is left open.
        left: Layers that cannot be cut, with a word of the reason.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    sizes: dict[str, int] | None = None
    left: dict[str, str] = field(default_factory=dict)


CASES: dict[str, Case] = {}
Maker = Callable[[], nn.Module]


def image(*shape: int) -> Callable[[], Inputs]:
    return lambda: (torch.randn(*shape),)


IMAGE = image(2, 3, 8, 8)


def case(
    inputs: Callable[[], Inputs] = IMAGE, sizes: dict[str, int] | None = None, left: dict[str, str] | None = None
) -> Callable[[Maker], Maker]:
    """Add what is decorated to the collection, under its name."""

    def add(make: Maker) -> Maker:
        CASES[make.__name__.lower()] = Case(make, inputs, sizes, left or {})
        return make

    return add


def build(name: str, seed: int = 0) -> nn.Module:
    """A network of the collection in evaluation mode, every weight and every statistic random."""
    torch.manual_seed(seed)
    return randomised(CASES[name].make())


def randomised(model: nn.Module) -> nn.Module:
    """Norms that are not the identity and raw parameters that are not constant, in evaluation mode."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _NormBase | FrozenBatchNorm2d | nn.GroupNorm | nn.LayerNorm):
                for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                    if tensor.is_floating_point():
                        low, high = (-0.5, 0.5) if name in ("bias", "running_mean") else (0.5, 1.5)
                        tensor.uniform_(low, high)
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(0.1, 0.9)
    return model.eval()


def inputs_of(name: str, seed: int = 1) -> Inputs:
    torch.manual_seed(seed)
    return CASES[name].inputs()


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Between(nn.Module):
    """`stem` -> what is tried -> `last` -> classifier `head`."""

    def __init__(self, middle: nn.Module | Callable[..., Tensor], made: int = 8, read: int | None = None) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, made, 3, padding=1, bias=False), nn.BatchNorm2d(made)
        self.middle = middle if isinstance(middle, nn.Module) else Call(middle)
        self.last = nn.Conv2d(made if read is None else read, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(F.relu(self.norm(self.stem(x))))
        return self.head(F.relu(self.last(x)).mean((2, 3)))


BETWEEN = {"stem": 8, "last": 6}


def conv_bn(inputs: int, outputs: int, kernel: int = 3, groups: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())
