"""Layer norms of a masked network: what is cut from their channels is cut from their mean and variance as well.

Where a layer norm, or a group norm of a single group, reads the channels of a group, the compact network cannot compute
what the dense one does, not even from channels that are zero: the group is *inexact*. It is right to compare it with
the masked network whose norms look at the kept channels only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from compressor.structure.plan import Plan
from compressor.support.modules import named_tensors


class KeptNorms(TorchFunctionMode):
    """Layer norms over the channels that a plan keeps; those that it drops come out as zeros. Gradients are right, too.

    Args:
        model: The network with its original widths.
        plan: What is kept.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        super().__init__()
        tensors = named_tensors(model)
        dropped: dict[str, set[int]] = defaultdict(set)
        for planned in plan.groups:
            if planned.group.inexact:
                for s in planned.group.slices:
                    if s.role == "carrier" and tensors[s.tensor].dim() == 1:
                        dropped[s.tensor].update(c for unit in planned.dropped for c in s.coordinates[unit])
        self._kept = {tensors[name].data_ptr(): _others(tensors[name], gone) for name, gone in dropped.items() if gone}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.layer_norm or func is torch.layer_norm:
            return self._layer_norm(*args[:5], **_without_cudnn(kwargs))
        if func is F.group_norm or func is torch.group_norm:
            return self._group_norm(*args[:5], **_without_cudnn(kwargs))
        return func(*args, **(kwargs or {}))

    def _layer_norm(
        self,
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        kept = self._kept_by(weight)
        if kept is None:
            return F.layer_norm(input, list(normalized_shape), weight, bias, eps)
        normed = F.layer_norm(input[..., kept], [len(kept)], _at(weight, kept), _at(bias, kept), eps)
        return _spread(normed, kept, input, -1)

    def _group_norm(
        self,
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        kept = self._kept_by(weight)
        if kept is None or num_groups > 1:
            return F.group_norm(input, num_groups, weight, bias, eps)
        normed = F.group_norm(input[:, kept], 1, _at(weight, kept), _at(bias, kept), eps)
        return _spread(normed, kept, input, 1)

    def _kept_by(self, weight: Tensor | None) -> Tensor | None:
        return None if weight is None else self._kept.get(weight.data_ptr())


def kept_norms(model: nn.Module, plan: Plan) -> AbstractContextManager[Any]:
    """The norms that a plan for this network calls for; nothing where it cuts no inexact group."""
    return KeptNorms(model, plan) if any(p.group.inexact and p.dropped for p in plan.groups) else nullcontext()


def _others(tensor: Tensor, gone: set[int]) -> Tensor:
    return torch.tensor([c for c in range(len(tensor)) if c not in gone], device=tensor.device)


def _at(tensor: Tensor | None, kept: Tensor) -> Tensor | None:
    return None if tensor is None else tensor[kept]


def _spread(normed: Tensor, kept: Tensor, like: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(like, dtype=normed.dtype).index_copy(axis, kept, normed)


def _without_cudnn(kwargs: Any) -> dict[str, Any]:
    return {name: value for name, value in (kwargs or {}).items() if not name.startswith("cudnn")}
