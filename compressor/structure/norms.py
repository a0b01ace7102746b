"""Layer norms of a masked network: what is cut from their channels is cut from their mean and variance as well.

Where a layer norm reads the channels of a group, the compact network cannot compute what the dense one does, not even
from channels that are zero: the group is *inexact*. It is right to compare it with the masked network whose norms look
at the kept channels only.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.structure.plan import Plan
from compressor.structure.watch import aten


class KeptNorms(TorchDispatchMode):
    """Layer norms over the channels that a plan keeps; those that it drops come out as zeros.

    Args:
        model: The network with its original widths.
        plan: What is kept.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        super().__init__()
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())
        dropped: dict[str, set[int]] = defaultdict(set)
        for planned in plan.groups:
            if planned.group.inexact:
                for s in planned.group.slices:
                    if s.role == "carrier" and tensors[s.tensor].dim() == 1:
                        dropped[s.tensor].update(c for unit in planned.dropped for c in s.coordinates[unit])
        self._kept = {tensors[name].data_ptr(): _others(tensors[name], gone) for name, gone in dropped.items() if gone}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kept = None
        if func.overloadpacket is aten.native_layer_norm and args[2] is not None:
            kept = self._kept.get(args[2].data_ptr())
        if kept is None:
            return func(*args, **(kwargs or {}))
        x, _, weight, bias, eps = args
        own = None if bias is None else bias[kept]
        normed, mean, deviation = func(x.index_select(-1, kept), [len(kept)], weight[kept], own, eps)
        return torch.zeros_like(x).index_copy_(-1, kept, normed), mean, deviation


def kept_norms(model: nn.Module, plan: Plan) -> AbstractContextManager[Any]:
    """The norms that a plan for this network calls for; nothing where it cuts no inexact group."""
    return KeptNorms(model, plan) if any(p.group.inexact and p.dropped for p in plan.groups) else nullcontext()


def _others(tensor: Tensor, gone: set[int]) -> Tensor:
    return torch.tensor([c for c in range(len(tensor)) if c not in gone], device=tensor.device)
