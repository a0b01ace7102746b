"""Slice the weights as the plan says: the result is an ordinary dense module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.structure.groups import ChannelGroup, Slice
from compressor.structure.plan import Plan, PlannedGroup
from compressor.structure.surgery.attributes import repair_attributes
from compressor.structure.surgery.zero_width import can_vanish, vanish
from compressor.structure.tensors import duplicate, take
from compressor.support.modules import named_tensors


def shrink(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of `model` without the units that the plan drops.

    Args:
        model: The architecture with its original widths; it is left untouched.
        plan: What to keep.

    Returns:
        An ordinary network with narrower layers and tensors of its own.

    Raises:
        InputError: The plan was made for another architecture.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> plan = compressor.Plan.uniform(compressor.find_groups(model, torch.zeros(1, 4)), keep=0.5)
        >>> compressor.shrink(model, plan)[0]
        Linear(in_features=4, out_features=4, bias=True)
    """
    return _shrink(model, plan, {})


def preview(model: nn.Module, plan: Plan) -> nn.Module:
    """The shrunk network for a single run: parameters that the plan does not cut are those of `model` itself."""
    own = {buffer: buffer.clone() for buffer in model.buffers()}  # a forward pass may write them
    return _shrink(model, plan, {parameter: parameter for parameter in model.parameters()} | own)


def _shrink(model: nn.Module, plan: Plan, given: Mapping[Tensor, Tensor]) -> nn.Module:
    tensors = named_tensors(model)
    cuts = [(s, [c for u in _removed(p) for c in s.coordinates[u]]) for p in plan.groups for s in p.group.slices]
    check_fits(tensors, (s for s, _ in cuts))
    by_tensor: dict[str, list[tuple[Slice, list[int]]]] = defaultdict(list)
    for cut, dropped in cuts:
        if dropped:
            by_tensor[cut.tensor].append((cut, dropped))
    small = duplicate(model, {**given, **{tensors[name]: tensors[name] for name in by_tensor}})
    with torch.no_grad():
        replaced = {tensors[name]: _cut(tensors[name], own) for name, own in by_tensor.items()}
    touched = _replace(small, replaced)
    repair_attributes(small, plan, touched, model)
    for planned in plan.groups:
        if planned.vanished:
            _vanish(small, planned.group, tensors)
    return small


def _removed(planned: PlannedGroup) -> tuple[int, ...]:
    """The units that are sliced away: of a vanished group one stays in the carriers, which nothing reads."""
    return planned.dropped[1:] if planned.vanished else planned.dropped


def _vanish(model: nn.Module, group: ChannelGroup, tensors: dict[str, Tensor]) -> None:
    """Layers that lost all their inputs, or all their outputs, become constants."""
    for s in group.slices:
        module = model.get_submodule(s.layer)
        if s.role == "consumer":
            vanish(module, silent=False)
        elif s.role == "producer" and is_whole(s, tensors[s.tensor]) and can_vanish(module):
            vanish(module, silent=True)


def is_whole(cut: Slice, tensor: Tensor) -> bool:
    """True where the units of a slice are all that its axis has."""
    return sum(map(len, cut.coordinates)) == tensor.shape[cut.axis] * cut.conv_groups


def check_fits(tensors: dict[str, Tensor], slices: Iterable[Slice]) -> None:
    """Raise InputError unless every slice lies within a tensor of the model."""
    for s in slices:
        tensor = tensors.get(s.tensor)
        if tensor is None or s.axis >= tensor.dim():
            problem = f"the plan cuts {s.tensor}, which this network does not have"
        elif s.end > tensor.shape[s.axis] * s.conv_groups:
            problem = f"{s.tensor} has shape {tuple(tensor.shape)}, too small for the plan"
        elif tensor.shape[0] % s.conv_groups:
            problem = f"{s.tensor} has shape {tuple(tensor.shape)}, not {s.conv_groups} groups of channels"
        else:
            continue
        raise InputError(problem, where="plan", cure="give the architecture with its original widths")


def _cut(tensor: Tensor, cuts: list[tuple[Slice, list[int]]]) -> Tensor:
    """Cut all axes of a tensor; coordinates of several groups on one axis go together."""
    dropped: dict[tuple[int, int], set[int]] = defaultdict(set)
    for s, coordinates in cuts:
        dropped[s.axis, s.conv_groups].update(coordinates)
    result = tensor.detach()
    for (axis, conv_groups), gone in sorted(dropped.items(), key=lambda item: item[0][1]):
        kept = [c for c in range(result.shape[axis] * conv_groups) if c not in gone]
        result = _select(result, axis, kept, conv_groups)
    own = result.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()
    result = result.contiguous() if own else result.clone(memory_format=torch.contiguous_format)
    return nn.Parameter(result, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else result


def _select(tensor: Tensor, axis: int, kept: list[int], conv_groups: int) -> Tensor:
    if conv_groups == 1:
        return take(tensor, axis, kept)
    width = tensor.shape[axis]
    parts = []
    for g, part in enumerate(tensor.chunk(conv_groups, dim=0)):
        own = [c - g * width for c in kept if g * width <= c < (g + 1) * width]
        parts.append(take(part, axis, own))
    return torch.cat(parts)


def _replace(model: nn.Module, replaced: dict[Tensor, Tensor]) -> dict[str, nn.Module]:
    """Put the new tensors wherever the old ones stand, tied weights included; return the modules where they did."""
    touched = {}
    for path, module in model.named_modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None and tensor in replaced:
                    store[name] = replaced[tensor]
                    touched[path] = module
    return touched
