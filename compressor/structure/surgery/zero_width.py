"""What a layer becomes when all that it reads, or all that it makes, is cut: a constant without weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


class _Constant:
    """Returns its bias in the shape that the layer would have returned; its weight is empty."""

    bias: Tensor | None
    channels: int

    def _filled(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        zeros = x.new_zeros(shape)
        if self.bias is None:
            return zeros
        spatial = len(shape) - 2 if isinstance(self, _ConvNd) else 0
        return zeros + self.bias.reshape(-1, *[1] * spatial)


class _ConstantConvolution(_Constant):
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, any, *size) to (batch, channels, *size of the convolution's output)."""
        size = list(x.shape[2:])
        for axis, (k, s, d) in enumerate(zip(self.kernel_size, self.stride, self.dilation, strict=True)):
            if self.padding != "same":
                pad = 0 if isinstance(self.padding, str) else self.padding[axis]
                size[axis] = (size[axis] + 2 * pad - d * (k - 1) - 1) // s + 1
        return self._filled(x, (x.shape[0], self.channels, *size))


class ConstantConv1d(_ConstantConvolution, nn.Conv1d):
    """A vanished `nn.Conv1d`."""


class ConstantConv2d(_ConstantConvolution, nn.Conv2d):
    """A vanished `nn.Conv2d`."""


class ConstantConv3d(_ConstantConvolution, nn.Conv3d):
    """A vanished `nn.Conv3d`."""


class ConstantLinear(_Constant, nn.Linear):  # type: ignore[misc]
    """A vanished `nn.Linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., any) to (..., channels)."""
        return self._filled(x, (*x.shape[:-1], self.channels))


_CONSTANT: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: ConstantConv1d,
    nn.Conv2d: ConstantConv2d,
    nn.Conv3d: ConstantConv3d,
    nn.Linear: ConstantLinear,
}


def can_vanish(module: nn.Module) -> bool:
    """True for layers that have a constant to become."""
    return type(module) in _CONSTANT


def vanish(module: nn.Module, *, silent: bool) -> None:
    """Turn a layer into a constant, in place; one that is a constant already can still be silenced.

    Args:
        module: A layer for which `can_vanish` held, its weight cut already.
        silent: Return zeros, not the bias.
    """
    if not isinstance(module, _Constant):
        assert isinstance(module.weight, Tensor)
        channels = module.weight.shape[0]
        module.__class__ = _CONSTANT[type(module)]
        setattr(module, "channels", channels)  # noqa: B010 - the class is another one now
        module.weight = nn.Parameter(module.weight.detach().new_empty(0), requires_grad=False)
    if silent:
        module.register_parameter("bias", None)
