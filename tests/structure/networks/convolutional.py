"""Small networks: convolutional networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.structure.networks.case import BETWEEN, Between, Call, case, conv_bn, image


@case(sizes={"0.0": 8, "1.0": 6})
def plain() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), conv_bn(8, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


@case(sizes={"0": 8, "2": 6})
def biased() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 6, 3), nn.Hardswish(), nn.Conv2d(6, 4, 1))


@case(image(2, 6), sizes={"0": 8, "2": 10})
def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10, bias=False), nn.Tanh(), nn.Linear(10, 3))


@case(sizes={"stem.0": 8, "inner.0": 6})
class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = conv_bn(3, 8), conv_bn(8, 6)
        self.outer, self.norm, self.head = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.norm(self.outer(self.inner(x))))
        return self.head(x.mean((2, 3)))


@case(sizes={"stem.0": 6, "one.0": 4, "two.0": 4, "three": 10})
class Bottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = conv_bn(3, 6), conv_bn(6, 4, 1), conv_bn(4, 4, 3, stride=2)
        self.three, self.norm3 = nn.Conv2d(4, 10, 1, bias=False), nn.BatchNorm2d(10)
        self.shortcut, self.norms = nn.Conv2d(6, 10, 1, stride=2, bias=False), nn.BatchNorm2d(10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.norm3(self.three(self.two(self.one(x)))) + self.norms(self.shortcut(x))
        return self.head(F.relu(x).mean((2, 3)))


@case(sizes={"stem": 8, "first": 6})
class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm1, self.first = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 6, 3, padding=1),
        )
        self.norm2, self.second = nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, padding=1)
        self.norm3, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.second(F.relu(self.norm2(self.first(F.relu(self.norm1(x))))))
        return self.head(F.relu(self.norm3(x)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


@case(sizes={"stem.0": 6, "grow.0": 12, "excite.reduce": 4})
class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grow, self.deep = conv_bn(3, 6), conv_bn(6, 12, 1), conv_bn(12, 12, 3, groups=12)
        self.excite, self.shrink, self.norm = SqueezeExcite(12, 4), nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.norm(self.shrink(self.excite(self.deep(self.grow(x)))))
        return self.head(x.mean((2, 3)))


@case(sizes={"stem": 4, "one": 6, "two": 5})
class DenseConcat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm1, self.one = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 6, 3, padding=1),
        )
        self.norm2, self.two = nn.BatchNorm2d(10), nn.Conv2d(10, 5, 3, padding=1)
        self.norm3, self.head = nn.BatchNorm2d(15), nn.Linear(15, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.one(F.relu(self.norm1(x)))], 1)
        x = torch.cat([x, self.two(F.relu(self.norm2(x)))], 1)
        return self.head(F.relu(self.norm3(x)).mean((2, 3)))


@case(sizes={"stem.0": 6, "a.0": 4, "b.0.0": 3, "b.1.0": 5, "c.1.0": 2, "join.0": 6})
class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv_bn(3, 6), conv_bn(6, 4, 1), nn.Sequential(conv_bn(6, 3, 1), conv_bn(3, 5))
        self.c = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv_bn(6, 2, 1))
        self.join, self.head = conv_bn(11, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.join(torch.cat([self.a(x), self.b(x), self.c(x)], 1)).mean((2, 3)))


@case(sizes={"0.0": 6})
def flatten() -> nn.Module:
    return nn.Sequential(conv_bn(3, 6), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 4))


@case(sizes={"0.0": 6})
def flatten_nhwc() -> nn.Module:
    turn = Call(lambda t: t.permute(0, 2, 3, 1).flatten(1))
    return nn.Sequential(conv_bn(3, 6), nn.MaxPool2d(2), turn, nn.Linear(96, 4))


@case(sizes={"0.0": 6})
def flatten_batch_norm() -> nn.Module:
    return nn.Sequential(conv_bn(3, 6), nn.MaxPool2d(4), nn.Flatten(), nn.BatchNorm1d(24), nn.Linear(24, 4))


@case(sizes={"stem": 8, "middle.0": 12, "last": 6})
def grouped() -> nn.Module:
    return Between(conv_bn(8, 12, groups=2), read=12)


@case(sizes={"stem": 12, "middle.0.0": 12, "middle.1.0": 8, "last": 6})
def grouped_twice() -> nn.Module:
    return Between(nn.Sequential(conv_bn(12, 12, groups=2), conv_bn(12, 8, groups=4)), 12, 8)


@case()
class GroupedConcat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.mix = conv_bn(3, 4), conv_bn(3, 8), conv_bn(12, 6, groups=3)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(torch.cat([self.a(x), self.b(x)], 1)).mean((2, 3)))


@case(sizes=BETWEEN)
def depthwise() -> nn.Module:
    return Between(conv_bn(8, 8, groups=8))


@case(sizes=BETWEEN)
def depthwise_multiplier() -> nn.Module:
    return Between(conv_bn(8, 24, groups=8), read=24)


@case(sizes={"a.0": 4, "b.0": 6, "last": 5})
class DepthwiseConcat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.deep = conv_bn(3, 4), conv_bn(3, 6, 1), nn.Conv2d(10, 10, 3, padding=1, groups=10)
        self.act, self.last, self.head = nn.PReLU(10), nn.Conv2d(10, 5, 1), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.deep(torch.cat([self.a(x), self.b(x)], 1)))
        return self.head(self.last(x).mean((2, 3)))


@case(sizes=BETWEEN)
def transposed() -> nn.Module:
    return Between(nn.Sequential(nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8), nn.ReLU()))


@case(sizes={"stem": 8, "middle.0": 10, "last": 6})
def transposed_full() -> nn.Module:
    return Between(nn.Sequential(nn.ConvTranspose2d(8, 10, 3, stride=2, padding=1), nn.BatchNorm2d(10)), read=10)


@case(sizes={"stem": 8, "middle": 12, "last": 6})
def transposed_grouped() -> nn.Module:
    return Between(nn.ConvTranspose2d(8, 12, 2, stride=2, groups=2), read=12)


@case(sizes={"down.0": 6, "deep.0": 8, "up": 4, "out.0": 5})
class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = conv_bn(3, 6), conv_bn(6, 8, stride=2)
        self.up, self.out, self.head = nn.ConvTranspose2d(8, 4, 2, stride=2), conv_bn(10, 5), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return self.head(self.out(torch.cat([self.up(self.deep(x)), x], 1)))


@case(image(2, 3, 16), sizes={"0": 8, "3": 6})
def one_dimensional() -> nn.Module:
    pool = nn.AdaptiveAvgPool1d(2)
    first, second = nn.Conv1d(3, 8, 5, stride=2), nn.Conv1d(8, 6, 3, dilation=2)
    return nn.Sequential(first, nn.BatchNorm1d(8), nn.ReLU(), second, nn.ReLU(), pool, nn.Flatten(), nn.Linear(12, 4))


@case(image(2, 2, 4, 6, 6), sizes={"0": 6, "3": 4})
def three_dimensional() -> nn.Module:
    pool = nn.AdaptiveAvgPool3d(1)
    first, second = nn.Conv3d(2, 6, 3, padding=1), nn.ConvTranspose3d(6, 4, 2, stride=2)
    return nn.Sequential(first, nn.BatchNorm3d(6), nn.ReLU(), second, pool, nn.Flatten(), nn.Linear(4, 3))
