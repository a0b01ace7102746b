"""Small networks: norms and raw tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from tests.structure.networks.case import BETWEEN, Between, case, conv_bn


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
