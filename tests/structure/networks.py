"""Small networks, each with one kind of coupling: the collection that all tests of the structure run over."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrizations, parametrize
from torchvision.models import MaxVit, SwinTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2
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


# ---- convolutional networks ----------


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


# ---- norms and raw tensors ----------


@case(sizes=BETWEEN)
def prelu() -> nn.Module:
    return Between(nn.PReLU(8))


@case(sizes=BETWEEN)
def prelu_shared() -> nn.Module:
    return Between(nn.PReLU())


@case(sizes=BETWEEN)
def batch_norm_plain() -> nn.Module:
    return Between(nn.BatchNorm2d(8, affine=False))


@case(sizes=BETWEEN)
def instance_norm() -> nn.Module:
    return Between(nn.InstanceNorm2d(8, affine=True, track_running_stats=True))


@case(sizes=BETWEEN)
def instance_norm_plain() -> nn.Module:
    return Between(nn.InstanceNorm2d(8))


@case(sizes=BETWEEN)
def instance_norm_affine() -> nn.Module:
    return Between(nn.InstanceNorm2d(8, affine=True))


@case(sizes={"stem": 4, "last": 6})
def group_norm() -> nn.Module:
    return Between(nn.GroupNorm(4, 8))


@case(sizes=BETWEEN)
def group_norm_single() -> nn.Module:
    """One channel a group: an instance norm."""
    return Between(nn.GroupNorm(8, 8))


@case(sizes={"last": 6}, left={"stem": "norm"})
def group_norm_whole() -> nn.Module:
    return Between(nn.GroupNorm(1, 8))


class ChannelsLast(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@case(sizes={"last": 6}, left={"stem": "norm"})
def layer_norm() -> nn.Module:
    return Between(ChannelsLast(nn.LayerNorm(8)))


@case(sizes={"last": 6}, left={"stem": ""})
def layer_norm_map() -> nn.Module:
    return Between(nn.LayerNorm([8, 8, 8]))


@case(sizes={"last": 6}, left={"stem": ""})
def rms_norm() -> nn.Module:
    return Between(ChannelsLast(nn.RMSNorm(8)))


class Raw(nn.Module):
    """A parameter or buffer that scales and another that shifts the channels."""

    def __init__(self, *shape: int, buffer: bool = False) -> None:
        super().__init__()
        for name in ("scale", "shift"):
            values = torch.rand(*shape) + 0.5
            if buffer:
                self.register_buffer(name, values)
            else:
                setattr(self, name, nn.Parameter(values))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


@case(sizes=BETWEEN)
def raw_scale() -> nn.Module:
    return Between(Raw(1, 8, 1, 1))


@case(sizes=BETWEEN)
def raw_scale_thin() -> nn.Module:
    return Between(Raw(8, 1, 1))


@case(sizes=BETWEEN)
def raw_scale_map() -> nn.Module:
    return Between(Raw(8, 8, 8))


@case(sizes=BETWEEN)
def raw_scale_nhwc() -> nn.Module:
    return Between(ChannelsLast(Raw(8)))


@case(sizes=BETWEEN)
def raw_buffers() -> nn.Module:
    return Between(Raw(1, 8, 1, 1, buffer=True))


@case(sizes=BETWEEN)
def raw_buffers_flat() -> nn.Module:
    return Between(ChannelsLast(Raw(8, buffer=True)))


class ViewedBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean.view(1, 8, 1, 1)


@case(sizes={"last": 6}, left={"stem": ""})
def constant_in_view() -> nn.Module:
    return Between(ViewedBuffer())


@case(sizes=BETWEEN)
def frozen_batch_norm() -> nn.Module:
    return Between(FrozenBatchNorm2d(8))


@case(sizes=BETWEEN)
def frozen_parameters() -> nn.Module:
    return Between(conv_bn(8, 8, groups=8)).requires_grad_(False)


# ---- weights that are not a module's own ----------


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


# ---- reshaping ----------


@case(sizes=BETWEEN)
def flip() -> nn.Module:
    return Between(lambda t: t.flip(1))


@case(left={"stem": ""})
def roll() -> nn.Module:
    return Between(lambda t: t.roll(5, 1))


@case(left={"stem": "pad"})
def pad_front() -> nn.Module:
    return Between(lambda t: F.pad(t, (0, 0, 0, 0, 2, 0)), read=10)


@case(left={"stem": "pad"})
def pad_back() -> nn.Module:
    return Between(lambda t: F.pad(t, (0, 0, 0, 0, 0, 2)), read=10)


@case(sizes=BETWEEN)
def stack_flatten() -> nn.Module:
    return Between(lambda t: torch.stack([t, t], 1).flatten(1, 2), read=16)


@case(sizes=BETWEEN)
def stack_interleave() -> nn.Module:
    return Between(lambda t: torch.stack([t, t.relu()], 2).flatten(1, 2), read=16)


@case(sizes=BETWEEN)
def concat_itself() -> nn.Module:
    return Between(lambda t: torch.cat([t, t], 1), read=16)


@case()
def first_half() -> nn.Module:
    return Between(lambda t: t[:, :4], read=4)


@case()
def swapped_halves() -> nn.Module:
    return Between(lambda t: torch.cat([t[:, 4:], t[:, :4]], 1))


@case()
def swapped_chunks() -> nn.Module:
    return Between(lambda t: torch.cat(t.chunk(2, 1)[::-1], 1))


@case()
def swapped_thirds() -> nn.Module:
    return Between(lambda t: torch.cat(t.chunk(3, 1)[::-1], 1), 12, 12)


@case()
def uneven_split() -> nn.Module:
    return Between(lambda t: torch.cat(t.split([3, 5], 1)[::-1], 1))


@case()
def chunk_gating() -> nn.Module:
    def gate(t: Tensor) -> Tensor:
        a, b = t.chunk(2, 1)
        return a * torch.sigmoid(b)

    return Between(gate, read=4)


@case()
def glu() -> nn.Module:
    return Between(nn.GLU(1), read=4)


@case()
def strided_slice() -> nn.Module:
    return Between(lambda t: t[:, ::2], read=4)


@case()
def even_and_odd() -> nn.Module:
    return Between(lambda t: torch.cat([t[:, ::2], t[:, 1::2]], 1))


@case(sizes=BETWEEN)
def repeat() -> nn.Module:
    return Between(lambda t: t.repeat(1, 2, 1, 1), read=16)


@case(sizes=BETWEEN)
def repeat_interleave() -> nn.Module:
    return Between(lambda t: t.repeat_interleave(2, 1), read=16)


@case()
def channel_shuffle() -> nn.Module:
    return Between(nn.ChannelShuffle(2))


@case()
def shuffle_by_shape() -> nn.Module:
    def shuffle(t: Tensor) -> Tensor:
        batch, _, height, width = t.shape
        return t.view(batch, 2, -1, height, width).transpose(1, 2).reshape(batch, -1, height, width)

    return Between(shuffle)


@case()
class ShuffleUnit(nn.Module):
    """ShuffleNet v2: half of the channels pass by, then both halves are shuffled together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.last, self.head = conv_bn(3, 8), conv_bn(4, 4), conv_bn(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).chunk(2, 1)
        x = torch.cat([a, self.branch(b)], 1)
        x = x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return self.head(self.last(x).mean((2, 3)))


@case(sizes={"stem": 2, "last": 6})
def pixel_shuffle() -> nn.Module:
    return Between(nn.PixelShuffle(2), read=2)


@case(sizes=BETWEEN)
def pixel_unshuffle() -> nn.Module:
    return Between(nn.PixelUnshuffle(2), read=32)


@case(left={"stem": "mixed"})
def channel_maximum() -> nn.Module:
    return Between(lambda t: t * torch.sigmoid(t.amax(1, keepdim=True) + t.mean(1, keepdim=True)))


@case(left={"stem": "mixed"})
def channel_softmax() -> nn.Module:
    return Between(lambda t: t.softmax(1))


@case(sizes=BETWEEN)
def upsample() -> nn.Module:
    return Between(lambda t: F.interpolate(t, scale_factor=2, mode="bilinear"))


@case(sizes=BETWEEN)
def created() -> nn.Module:
    return Between(lambda t: t * torch.linspace(1, 2, 8).view(8, 1) + torch.arange(8) + t.new_zeros(t.shape))


@case(left={"stem": ""})
def created_by_width() -> nn.Module:
    return Between(lambda t: t * torch.linspace(1, 2, t.shape[1]).view(-1, 1, 1))


@case(left={"stem": ""})
def divided_by_width() -> nn.Module:
    return Between(lambda t: t / t.shape[1])


@case(sizes=BETWEEN)
def broadcast_mask() -> nn.Module:
    return Between(OneMask())


class OneMask(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.mask(x))


@case(left={"stem.0": "pad"})
class OptionA(nn.Module):
    """The shortcut of ResNets for CIFAR: every second pixel, zeros for the channels that are new."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = conv_bn(3, 4), conv_bn(4, 6, stride=2), nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.two(self.one(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        return self.head(x.mean((2, 3)))


# ---- attention ----------

TOKENS = image(2, 5, 8)


class MultiHead(nn.Module):
    def __init__(self, batch_first: bool, **options: Any) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.stem, self.attend = nn.Linear(8, 12), nn.MultiheadAttention(12, 3, batch_first=batch_first, **options)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        x = x if self.batch_first else x.transpose(0, 1)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1 if self.batch_first else 0))


@case(TOKENS, sizes={"stem": 12, "attend": 3})
def multihead() -> nn.Module:
    return MultiHead(batch_first=True)


@case(TOKENS, sizes={"stem": 12, "attend": 3})
def multihead_sequence_first() -> nn.Module:
    return MultiHead(batch_first=False)


@case(TOKENS)
def multihead_extra_key() -> nn.Module:
    return MultiHead(batch_first=True, add_bias_kv=True, add_zero_attn=True)


@case(TOKENS)
def multihead_unbiased() -> nn.Module:
    return MultiHead(batch_first=True, bias=False)


@case(lambda: (torch.randn(2, 5, 8), torch.randn(2, 7, 10)))
class CrossAttention(nn.Module):
    """Queries from one stream, keys and values of another width from the other, with a padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, kdim=12, vdim=12, batch_first=True)
        self.left, self.right, self.head = nn.Linear(8, 8), nn.Linear(10, 12), nn.Linear(8, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.left(x), torch.tanh(self.right(y))
        mask = torch.arange(7).expand(len(y), -1) > 4
        return self.head(x + self.attend(x, y, y, key_padding_mask=mask)[0])


@case(TOKENS, sizes={"0.self_attn": 2, "0.linear1": 12})
def encoder_layer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, nn.Linear(8, 3))


class FusedAttention(nn.Module):
    def __init__(self, width: int = 8, heads: int = 4, head: int = 3) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, head
        self.qkv, self.proj = nn.Linear(width, 3 * heads * head), nn.Linear(heads * head, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, -1))


@case(TOKENS, sizes={"fc1": 12, "attend.qkv": 4})
class Transformer(nn.Module):
    """Norm, fused attention, norm, perceptron, on a stream with a class token and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 6, 8))
        self.embed, self.norm1, self.attend = nn.Linear(8, 8), nn.LayerNorm(8), FusedAttention()
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.norm3, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1) + self.place
        x = x + self.attend(self.norm1(x))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(self.norm3(x)[:, 0])


def layers(sizes: dict[str, int], *blocks: str) -> dict[str, int]:
    """The same groups in every block."""
    return {f"{block}.{name}": size for block in blocks for name, size in sizes.items()}


@case(image(2, 3, 10, 10), sizes=layers({"attn.qkv": 2, "mlp.0": 32}, "features.1.0", "features.1.1"))
def swin() -> nn.Module:
    return SwinTransformer([2, 2], 8, [2], [2], [2, 2], stochastic_depth_prob=0.0, num_classes=3)


@case(
    image(2, 3, 10, 6),
    sizes=layers({"attn.cpb_mlp.0": 512, "attn.cpb_mlp.2": 2, "mlp.0": 32}, "features.1.0", "features.1.1"),
)
def swin_v2() -> nn.Module:
    kinds = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    return SwinTransformer([2, 2], 8, [2], [2], [2, 4], stochastic_depth_prob=0.0, num_classes=3, **kinds)


@case(
    image(2, 3, 16, 16),
    sizes={"stem.0.0": 6, "stem.1.0": 6, "classifier.3": 8}
    | layers({"layers.conv_a.0": 32, "layers.squeeze_excitation.fc1": 2}, "blocks.0.layers.0.layers.MBconv")
    | layers(
        {"attn_layer.1.to_qkv": 2, "mlp_layer.1": 32},
        "blocks.0.layers.0.layers.window_attention",
        "blocks.0.layers.0.layers.grid_attention",
    ),
)
def maxvit() -> nn.Module:
    return MaxVit((16, 16), 6, 2, [8], [1], 4, stochastic_depth_prob=0.0, num_classes=3)


@case(sizes={"last": 6}, left={"stem": "computed weights by normed", "normed": "computed from other tensors"})
class Standardised(nn.Module):
    """A convolution that normalises its weight whenever it runs: cutting an input would change all of it."""

    class Normed(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, F.layer_norm(self.weight, self.weight.shape[1:]), self.bias)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.normed, self.last = nn.Conv2d(3, 8, 1), self.Normed(8, 5, 1), nn.Conv2d(5, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.last(F.relu(self.normed(F.relu(self.stem(x)))))).mean((2, 3)))


@case(TOKENS, sizes={"fc1": 6})
class PackedGate(nn.Module):
    """Values and their gates come out of one layer, as in SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.fc1(x).chunk(2, -1)
        return self.fc2(values * F.silu(gates)).mean(1)


@case(TOKENS, sizes={"attend.qkv": 4})
class Rotary(nn.Module):
    """Attention with positions that turn queries and keys, the same in every head."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.head = FusedAttention(head=2), nn.Linear(8, 4)
        self.register_buffer("turn", torch.randn(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.attend.qkv(x).reshape(batch, tokens, 3, -1, 2).permute(2, 0, 3, 1, 4)
        q, k = (t * self.turn + t.flip(-1) * self.turn.roll(1, 0) for t in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.attend.proj(mixed).softmax(-1).mean(1))


class Separate(nn.Module):
    """Separate q, k, v; `pairs` of query heads share one key and value head; optionally normed queries and keys."""

    def __init__(self, heads: int = 4, shared: int = 1, normed: bool = False) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = heads, heads // shared, 3
        self.q, self.k = nn.Linear(8, heads * 3), nn.Linear(8, heads // shared * 3)
        self.v, self.out = nn.Linear(8, heads // shared * 3), nn.Linear(heads * 3, 8)
        self.q_norm, self.k_norm = (nn.LayerNorm(3), nn.LayerNorm(3)) if normed else (nn.Identity(), nn.Identity())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q = self.q_norm(self.q(x).view(batch, tokens, self.num_heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(batch, tokens, self.num_kv_heads, self.head_dim)).transpose(1, 2)
        v = self.v(x).view(batch, tokens, self.num_kv_heads, self.head_dim).transpose(1, 2)
        k, v = (t.repeat_interleave(self.num_heads // self.num_kv_heads, 1) for t in (k, v))
        weights = (q @ k.transpose(2, 3) / math.sqrt(self.head_dim)).softmax(-1)
        return self.head(x + self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, -1)))


@case(TOKENS, sizes={"q": 4})
def separate() -> nn.Module:
    return Separate()


@case(TOKENS, sizes={"q": 4})
def query_key_norm() -> nn.Module:
    return Separate(normed=True)


@case(TOKENS, sizes={"q": 4})
class ShortNames(nn.Module):
    """The names of a textbook: as many heads as each is wide."""

    def __init__(self) -> None:
        super().__init__()
        self.h, self.d_k = 4, 4
        self.q, self.k, self.v, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        split = (*x.shape[:2], self.h, self.d_k)
        q, k, v = (layer(x).view(split).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(2, 3) / self.d_k**0.5).softmax(-1) @ v
        return self.head(x + self.out(mixed.transpose(1, 2).reshape(*x.shape[:2], self.h * self.d_k)))


@case(TOKENS)
def grouped_query() -> nn.Module:
    return Separate(shared=2)


@case(TOKENS, sizes={"tokens.0": 7, "channels.0": 12})
class TokenMixer(nn.Module):
    """MLP-Mixer: a perceptron over the tokens, then one over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm1, self.norm2 = nn.Linear(8, 8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.tokens = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5))
        self.channels = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norm2(x))
        return self.head(x.mean(1))


# ---- inputs, outputs, modes ----------


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
