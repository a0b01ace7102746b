"""Helpers on the tensors of a network."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn


def take(tensor: Tensor, axis: int, places: Sequence[int]) -> Tensor:
    """Some places of an axis, in ascending order: a view where they are a run, else a copy."""
    if is_run(places):
        return tensor.narrow(axis, places[0], len(places))
    return tensor.index_select(axis, torch.tensor(places, dtype=torch.long, device=tensor.device))


def is_run(places: Sequence[int]) -> bool:
    """True for ascending numbers without a gap, which are read and written several times as fast."""
    return bool(places) and places[-1] - places[0] == len(places) - 1


def duplicate(model: nn.Module, given: Mapping[Tensor, Tensor] = MappingProxyType({})) -> nn.Module:
    """Return a deep copy; tensors that hooks computed from weights are cut off from them, to be computed again.

    Args:
        model: What to copy.
        given: What the copy has in place of some tensors: themselves where they are shared, or others are put there.
    """
    modules = list(model.modules())
    for module in modules:
        for store in (vars(module), module._buffers):
            store.update({k: v.detach() for k, v in store.items() if isinstance(v, Tensor) and not v.is_leaf})
    copies: dict[int, Any] = {id(tensor): other for tensor, other in given.items()}
    for module in reversed(modules):
        _copy_early(module, copies)
    return copy.deepcopy(model, copies)


def _copy_early(module: nn.Module, copies: dict[int, Any]) -> None:
    """Put into a memo of `deepcopy` what takes it most of its time: the empty dictionaries of hooks."""
    empty = [v for v in vars(module).values() if type(v) in (dict, OrderedDict) and not v]
    copies |= {id(store): type(store)() for store in empty}
