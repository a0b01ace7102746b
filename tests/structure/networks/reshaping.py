"""Small networks: reshaping."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.structure.networks.case import BETWEEN, Between, case, conv_bn


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
