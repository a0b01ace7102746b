"""Small networks: inputs, outputs, modes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.structure.networks.case import case, conv_bn, image


@case(lambda: (torch.randn(2, 3, 8, 8), torch.randn(2, 5)), sizes={"left.0": 6, "right": 6})
class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = conv_bn(3, 6), nn.Linear(5, 6), nn.Linear(12, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(torch.cat([self.left(x).mean((2, 3)), F.relu(self.right(y))], 1))


@case(lambda: ({"image": torch.randn(2, 3, 8, 8), "scale": torch.rand(2)},), sizes={"stem.0": 6, "inner.0": 5})
class Dictionaries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head, self.map = conv_bn(3, 6), conv_bn(6, 5), nn.Linear(5, 4), nn.Conv2d(6, 1, 1)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        x = self.stem(batch["image"] * batch["scale"].view(-1, 1, 1, 1))
        return {"scores": self.head(self.inner(x).mean((2, 3))), "maps": [self.map(x)]}


@dataclass
class Result:
    scores: Tensor
    count: int


@case(sizes={"0.0": 6})
class DataclassOutput(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Result:  # type: ignore[override]
        return Result(super().forward(x), len(x))


@case(sizes={"second.0": 5}, left={"first.0": "output"})
class FeatureOutput(nn.Module):
    """Inner channels are an output of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = conv_bn(3, 6), conv_bn(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x)
        return x, self.head(self.second(x).mean((2, 3)))


@case(sizes={"stem.0": 8, "inner.0": 6, "aux.0.0": 5})
class Auxiliary(nn.Module):
    """A second classifier that runs in training mode only, and reads channels that can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = conv_bn(3, 8), conv_bn(8, 6), nn.Linear(6, 4)
        self.aux = nn.Sequential(conv_bn(8, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        scores = self.head(self.inner(x).mean((2, 3)))
        return scores + self.aux(x) if self.training else scores


@case(sizes={"stem.0": 8, "inner.0": 6, "aux.0.0": 5})
class TrainingOnly(nn.Module):
    """A norm, a scale and a second classifier that are there in training only, in a module with a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = conv_bn(3, 8), conv_bn(8, 6), nn.Linear(6, 4)
        self.norm, self.scale = nn.BatchNorm2d(8), nn.Parameter(torch.randn(6))
        self.aux = nn.Sequential(conv_bn(8, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if not self.training:
            return self.head(self.inner(x).mean((2, 3)))
        x = self.norm(x)
        return self.head(self.inner(x).mean((2, 3)) * self.scale) + self.aux(x)


@case(sizes={"inner.0": 6}, left={"stem.0": "relies on its width"})
class NoisyTraining(nn.Module):
    """Its code knows how wide the stem is, and adds as much noise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = conv_bn(3, 8), conv_bn(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.training:
            x = x + 0.01 * torch.randn(8, 1, 1)
        return self.head(self.inner(x).mean((2, 3)))


class Turned(nn.Module):
    """A linear layer with its weight the other way round, which notes its widths under names of its own."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, self.nx), self.weight).view(*x.shape[:-1], self.nf)


@case(image(2, 5, 8), sizes={"up": 12, "square": 12})
class NotedWidths(nn.Module):
    """Widths that the code relies on, in a layer that makes as many channels as it reads too."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.square, self.down = Turned(12, 8), Turned(12, 12), Turned(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.square(F.relu(self.up(x)))))


class Kernels(nn.ModuleList):
    """Convolutions of several kernel sizes, each for its share of the channels; the shares are a list."""

    def __init__(self, shares: list[int]) -> None:
        super().__init__(nn.Conv2d(n, n, 2 * i + 1, padding=i, groups=n) for i, n in enumerate(shares))
        self.shares = shares

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.shares, 1)
        return torch.cat([convolution(part) for convolution, part in zip(self, parts, strict=True)], 1)


@case(sizes={"stem.0": 5, "stem.0[5]": 3, "stem.0[8]": 4})
class MixedKernels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.kernels, self.head = conv_bn(3, 12), Kernels([5, 3, 4]), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.kernels(self.stem(x)).mean((2, 3)))


@case(sizes={"stem.0": 6, "inner.0": 5})
class Guarded(nn.Module):
    """Code that looks for numbers that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = conv_bn(3, 6), conv_bn(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if not torch.isfinite(x).all():
            x = torch.nan_to_num(x).clamp(-1000, 1000)
        return self.head(self.inner(x).mean((2, 3)))


@case(image(2, 5, 8), sizes={"left": 6})
class ProjectedParameter(nn.Module):
    """A linear layer that reads a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(5, 8))
        self.left, self.right, self.head = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.left(x) + self.right(self.places)))


@case(image(2, 8, 6), sizes={"o": 8, "mlp": 6}, left={"q": "single unit in each group"})
class GroupedHeads(nn.Module):
    """Heads that grouped convolutions make: one for each of their groups."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.o = (nn.Conv1d(8, 8, 1, groups=4) for _ in range(3))
        self.mlp, self.head = nn.Conv1d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k = (layer(x).unflatten(1, (4, 2)) for layer in (self.q, self.k))
        mixed = (q.transpose(-1, -2) @ k).softmax(-1) @ k.transpose(-1, -2)
        return self.head(F.relu(self.mlp(self.o(mixed.transpose(-1, -2).flatten(1, 2)))).mean(-1))


class SharedScores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.q, self.o = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (-1, 2)).transpose(1, 2)
        return self.o((((q @ q.transpose(-1, -2)) + scores).softmax(-1) @ q).transpose(1, 2).flatten(2))


@case(
    image(2, 5, 8),
    sizes={"first.o": 8, "bias": 3, "second.o": 8},
    left={"first.q": "relies on its width", "second.q": "relies on its width"},
)
class PassedOn(nn.Module):
    """Two layers of attention that share a tensor of zeros, one for each head: their heads must be equally many."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = SharedScores(), SharedScores(), nn.Linear(8, 4)
        self.bias, self.join = nn.Linear(8, 3), nn.Linear(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        scores = x.new_zeros(1, self.first.heads, 1, 1)
        return self.head(self.second(self.first(x, scores), scores) + self.join(self.bias(x)))


@case(sizes={})
def single() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
