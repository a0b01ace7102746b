"""Small networks: weights that are not a module's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from tests.structure.networks.case import Between, case, conv_bn, image


class OwnConvolution(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel, self.offset = (
            nn.Parameter(torch.randn(outputs, inputs, 3, 3) / 9),
            nn.Parameter(torch.randn(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, self.offset, padding=1)


@case(sizes={"stem": 8, "middle": 10, "last": 6})
def functional() -> nn.Module:
    return Between(OwnConvolution(8, 10), read=10)


class OwnMatrix(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return (x.permute(0, 2, 3, 1) @ self.matrix).permute(0, 3, 1, 2)


@case(sizes={"stem": 8, "middle": 10, "last": 6})
def matrix_product() -> nn.Module:
    return Between(OwnMatrix(8, 10), read=10)


@case(sizes={"stem": 8, "middle": 10, "last": 6})
def einsum() -> nn.Module:
    return Between(Einsum(8, 10), read=10)


class Einsum(OwnMatrix):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", x, self.matrix)


@case(lambda: (torch.randint(20, (2, 5)),), sizes={"out": 8, "inner": 6})
class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.out = nn.Embedding(20, 8), nn.Linear(8, 6), nn.Linear(6, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(x + self.out(F.relu(self.inner(x))))


@case(lambda: (torch.randint(20, (2, 5)),), sizes={"0": 8, "1": 6})
def embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


@case(sizes={"stem.0": 8})
class Twice(nn.Module):
    """One module used at two places of the data."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.head = conv_bn(3, 8), conv_bn(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shared(self.shared(self.stem(x))).mean((2, 3)))


@case(sizes={"stem.0": 8, "shared.0": 6})
class Siamese(nn.Module):
    """One module on two branches, whose outputs are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.head = conv_bn(3, 8), conv_bn(8, 6), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.cat([self.shared(x), self.shared(x.flip(3).roll(1, 2))], 1).mean((2, 3)))


@case(sizes={"stem.0": 8, "step.0": 6})
class Repeated(nn.Module):
    """A sub-network called again and again on a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv_bn(3, 8), nn.Linear(8, 4)
        self.step = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = x + self.step(x)
        return self.head(x.mean((2, 3)))


@case()
def weight_norm() -> nn.Module:
    model = Between(nn.Identity())
    parametrizations.weight_norm(model.last)
    parametrizations.weight_norm(model.stem)
    return model


@case()
def weight_norm_hook() -> nn.Module:
    model = Between(nn.Identity())
    nn.utils.weight_norm(model.last)
    return model


@case()
def spectral_norm() -> nn.Module:
    model = Between(nn.Identity())
    parametrizations.spectral_norm(model.last)
    return model


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@case()
def parametrized() -> nn.Module:
    model = Between(nn.Identity())
    parametrize.register_parametrization(model.stem, "weight", Doubled())
    return model


@case(image(2, 5, 6))
class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.lstm, self.head = nn.Linear(6, 8), nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(F.relu(self.first(x)))[0][:, -1])
