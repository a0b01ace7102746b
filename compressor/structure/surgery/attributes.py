"""Attributes that name widths, made true again after the weights were cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compressor.structure.groups import Role
from compressor.structure.plan import Plan, PlannedGroup
from compressor.structure.surgery.attention import FewerHeads

TOTAL_WIDTHS = {
    "attn_dim",
    "all_head_size",
    "inner_dim",
    "total_key_dim",
    "key_attn_dim",
    "val_attn_dim",
    "d_attn",
    "split_size",
}
"""What the width of all heads together is called, where it is not the width of the embedding."""


HEAD_WIDTHS = re.compile("(?<!all_)head_?(dim|size|width)|(dim|d)_head")
"""What the width of a head is called: it stays as it is."""

_NO_COUNT = re.compile("dim|size|width|stride|idx|index")
SHORT_COUNTS = {"h", "H", "nh", "n_h", "num_h"}
"""What the number of heads is called where no name has the word."""

SIDES: dict[str, Role] = {"out": "producer", "nf": "producer", "in": "consumer", "nx": "consumer"}
"""How the names of widths begin, for a layer that makes as many channels as it reads."""


def repair_attributes(model: nn.Module, plan: Plan, touched: Mapping[str, nn.Module], before: nn.Module) -> None:
    """Set the widths that modules keep as numbers to what their weights say now, in place.

    Args:
        model: The shrunk network.
        plan: What it was shrunk by.
        touched: The modules of which tensors were cut, by name.
        before: The network with its original widths.
    """
    roles = {(s.tensor, s.axis): s.role for p in plan.groups for s in p.group.slices if p.dropped}
    for name, module in touched.items():
        repairs = [repair for kind, repair in _REPAIRS if isinstance(module, kind)]
        for repair in repairs:
            repair(module)
        if not repairs:
            _own_widths(name, module, before.get_submodule(name), roles)
    for name in dict.fromkeys(name.rpartition(".")[0] for name in touched):
        _lists_of_widths(model.get_submodule(name), before.get_submodule(name))
    owners = dict.fromkeys(owner for name in touched for owner in (name, name.rpartition(".")[0]))
    for name in owners:
        _convert_attention(model.get_submodule(name), before.get_submodule(name))
    for planned in plan.groups:
        if planned.dropped:
            _repair_heads(model, planned)


def _convert_attention(module: nn.Module, before: nn.Module) -> None:
    if isinstance(module, nn.MultiheadAttention):
        FewerHeads.convert(module)
    elif type(module).__module__ in ("torchvision.models.swin_transformer", "torchvision.models.maxvit"):
        from compressor.structure.surgery.torchvision_attention import convert

        convert(module, before)


def _convolution(module: nn.Module) -> None:
    assert isinstance(module, _ConvNd)
    first, second = module.weight.shape[:2]
    if module.groups > 1 and module.groups == module.in_channels:
        module.groups = first if isinstance(module, _ConvTransposeNd) else first * module.groups // module.out_channels
    if isinstance(module, _ConvTransposeNd):
        module.in_channels, module.out_channels = first, second * module.groups
    else:
        module.in_channels, module.out_channels = second * module.groups, first


def _linear(module: nn.Module) -> None:
    assert isinstance(module, nn.Linear)
    module.out_features, module.in_features = module.weight.shape


def _batch_norm(module: nn.Module) -> None:
    assert isinstance(module, _NormBase)
    tensor = module.weight if module.weight is not None else module.running_mean
    if tensor is not None:
        module.num_features = tensor.numel()


def _layer_norm(module: nn.Module) -> None:
    assert isinstance(module, nn.LayerNorm)
    module.normalized_shape = tuple(module.weight.shape)


def _group_norm(module: nn.Module) -> None:
    assert isinstance(module, nn.GroupNorm)
    width = module.num_channels // module.num_groups
    module.num_channels = module.weight.numel()
    if module.num_groups > 1:
        module.num_groups = module.num_channels // width


def _prelu(module: nn.Module) -> None:
    assert isinstance(module, nn.PReLU)
    module.num_parameters = module.weight.numel()


def _embedding(module: nn.Module) -> None:
    assert isinstance(module, nn.Embedding)
    module.embedding_dim = module.weight.shape[1]


_REPAIRS: tuple[tuple[type[Any], Callable[[nn.Module], None]], ...] = (
    (_ConvNd, _convolution),
    (nn.Linear, _linear),
    (_NormBase, _batch_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.GroupNorm, _group_norm),
    (nn.PReLU, _prelu),
    (nn.Embedding, _embedding),
)


def _own_widths(name: str, module: nn.Module, before: nn.Module, roles: Mapping[tuple[str, int], Role]) -> None:
    """Widths that a module of unknown kind wrote down are sizes of its tensors; how wide heads are never changes."""
    sizes: dict[int, dict[Role | None, int]] = {}
    for tensor, old in before.named_parameters(recurse=False):
        new = getattr(module, tensor)
        for axis, size in enumerate(old.shape):
            sizes.setdefault(size, {})[roles.get((f"{name}.{tensor}", axis))] = new.shape[axis]
    for attribute, value in list(vars(module).items()):
        if type(value) is not int or value not in sizes or HEAD_WIDTHS.search(attribute):
            continue
        choices = sizes[value]
        side = next((role for start, role in SIDES.items() if attribute.startswith(start)), None)
        if len(set(choices.values())) == 1 or side in choices:
            setattr(module, attribute, choices.get(side, next(iter(choices.values()))))


def _lists_of_widths(module: nn.Module, before: nn.Module) -> None:
    """A list of the widths of all layers that a module holds, by which it splits what they share."""
    for attribute, value in list(vars(module).items()):
        if not isinstance(value, (list, tuple)) or len(value) < 2:
            continue
        for side in ("in_channels", "out_channels"):
            if list(value) == [getattr(child, side, None) for child in before.children()]:
                setattr(module, attribute, type(value)(getattr(child, side) for child in module.children()))


def _repair_heads(model: nn.Module, planned: PlannedGroup) -> None:
    """An attention module counts its heads: where the units are the heads, the count becomes what is left."""
    group = planned.group
    if not all(len(s.coordinates[0]) > 1 for s in group.slices if s.role == "consumer"):
        return
    width = next(len(s.coordinates[0]) for s in group.slices if s.role == "consumer")
    for layer in dict.fromkeys(s.layer for s in group.slices if s.role != "carrier"):
        for owner in (model.get_submodule(layer), model.get_submodule(layer.rpartition(".")[0])):
            if not isinstance(owner, nn.MultiheadAttention):
                _recount(owner, group.size, len(planned.kept), width)


def _recount(owner: nn.Module, heads: int, kept: int, width: int) -> None:
    numbers = {name: value for name, value in vars(owner).items() if type(value) is int}
    named = [name for name in numbers if "head" in name and not _NO_COUNT.search(name)]
    for name in named or [name for name in numbers if name in SHORT_COUNTS]:
        if numbers[name] == heads:
            setattr(owner, name, kept)
    for name in TOTAL_WIDTHS & numbers.keys():
        if numbers[name] == heads * width:
            setattr(owner, name, kept * width)
