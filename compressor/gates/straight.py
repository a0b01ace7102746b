"""Straight-through estimators: a step forwards, something with a slope backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def through(hard: Tensor, soft: Tensor) -> Tensor:
    """The values of `hard` with the gradient of `soft`."""
    return hard.detach() + soft - soft.detach()


class EqualGradients(torch.autograd.Function):
    """The identity; backwards, all groups get gradients of the same size, and all together keep theirs."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return `gates`, (units,), whose gradient is to be evened out over groups of these sizes."""
        ctx.sizes = sizes
        return gates.view_as(gates)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Divide by the root mean square of each group, multiply by that of all."""
        (gradient,) = gradients
        tiny = torch.finfo(gradient.dtype).tiny
        parts = [part / part.square().mean().sqrt().clamp_min(tiny) for part in gradient.split(ctx.sizes)]
        return torch.cat(parts) * gradient.square().mean().sqrt(), None
