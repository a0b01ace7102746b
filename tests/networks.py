"""Small networks of every kind of coupling, for tests that run over all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

INPUT = (3, 8, 8)
CLASSES = 4


def block(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(block(3, 8), block(8, 6), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(24, CLASSES))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = block(3, 8), block(8, 6), nn.Conv2d(6, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(relu(x + self.norm(self.second(self.first(x)))).mean((2, 3)))


class Depthwise(nn.Sequential):
    def __init__(self) -> None:
        pool = nn.AdaptiveAvgPool2d(1)
        super().__init__(block(3, 8), block(8, 8, groups=8), block(8, 6, 1), pool, nn.Flatten(), nn.Linear(6, CLASSES))


class Grouped(nn.Sequential):
    def __init__(self) -> None:
        pool = nn.AdaptiveAvgPool2d(1)
        super().__init__(block(3, 8), block(8, 8, groups=2), block(8, 6), pool, nn.Flatten(), nn.Linear(6, CLASSES))


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.join, self.head = block(3, 6), block(3, 4, 1), block(10, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(torch.cat([self.left(x), self.right(x)], 1)).mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "residual": Residual,
    "depthwise": Depthwise,
    "grouped": Grouped,
    "concatenated": Concatenated,
}


def build(kind: str, seed: int = 0) -> nn.Module:
    """A network in evaluation mode, with random weights and batch norms that are not the identity."""
    torch.manual_seed(seed)
    model = NETWORKS[kind]().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model
