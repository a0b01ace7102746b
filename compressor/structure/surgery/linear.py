"""An operation with a weight, seen as a matrix: rows of its inputs and outputs, and the weight that maps them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from compressor.structure.groups import Slice
from compressor.structure.tracing.ops import WeightCall


@dataclass(frozen=True)
class Places:
    """Where rows are read.

    Attributes:
        index: Positions of a convolution's output, the same for all images, or rows of another operation; None for all.
        size: Height and width (and so on) of a convolution's output.
    """

    index: Tensor | None
    size: tuple[int, ...] = ()


def draw_places(call: WeightCall, limit: int, generator: torch.Generator) -> Places:
    """Draw positions of a finished call at random where it has more than `limit`.

    Args:
        call: A finished call.
        limit: Number of rows to read at most, rounded up to a whole number per image of a convolution.
        generator: Draws the positions.
    """
    assert call.output is not None
    if call.is_convolution:
        images, size = call.output.shape[0], tuple(call.output.shape[2:])
        places = math.prod(size)
        count = min(places, -(-limit // images))
        return Places(torch.randperm(places, generator=generator)[:count].sort().values.to(call.output.device), size)
    rows = call.positions
    return Places(torch.randperm(rows, generator=generator)[:limit].to(call.output.device) if rows > limit else None)


def rows_at(call: WeightCall, places: Places) -> int:
    """How many rows are read of a finished call."""
    if not call.is_convolution:
        return call.positions if places.index is None else len(places.index)
    assert call.output is not None and places.index is not None
    return call.output.shape[0] * len(places.index)


def read_inputs(call: WeightCall, places: Places) -> Tensor:
    """Inputs as rows, (groups, rows, inputs of a group); those of a convolution are its patches, channel by channel."""
    assert call.input is not None
    return _patches(call, places) if call.is_convolution else _rows(call, call.input, places)


def read_outputs(call: WeightCall, places: Places) -> Tensor:
    """Outputs of a finished call as rows, (groups, rows, outputs of a group)."""
    assert call.output is not None
    if not call.is_convolution:
        return _rows(call, call.output, places)
    assert places.index is not None
    return _by_group(call.output.flatten(2).index_select(2, places.index).unsqueeze(3), call.groups)


def _rows(call: WeightCall, tensor: Tensor, places: Places) -> Tensor:
    tensor = tensor.transpose(-1, -2) if call.input_axis == -2 else tensor
    rows = tensor.reshape(-1, tensor.shape[-1])
    return (rows if places.index is None else rows[places.index]).unsqueeze(0)


def _patches(call: WeightCall, places: Places) -> Tensor:
    x, kernel, size = call.input, tuple(call.operand.shape[2:]), places.size
    assert x is not None and places.index is not None
    stride, padding, dilation, transposed, _ = call.settings
    if transposed:
        x = _stuffed(x, stride)
        padding = tuple(d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True))
        stride = (1,) * len(kernel)
    ahead = [(s - 1) * st + d * (k - 1) + 1 for s, st, d, k in zip(size, stride, dilation, kernel, strict=True)]
    pads = [(p, max(0, a - n - p)) for p, a, n in zip(padding, ahead, x.shape[2:], strict=True)]
    if any(before or after for before, after in pads):
        x = F.pad(x, [v for pair in reversed(pads) for v in pair])
    pixels = torch.zeros_like(places.index)
    corners = torch.unravel_index(places.index, size)
    for corner, n, k, s, d in zip(corners, x.shape[2:], kernel, stride, dilation, strict=True):
        along = (corner * s)[:, None] + d * torch.arange(k, device=corner.device)
        pixels = (pixels * n).unsqueeze(-1) + along.reshape(len(along), *[1] * (pixels.dim() - 1), k)
    picked = x.flatten(2).index_select(2, pixels.flatten())
    return _by_group(picked.unflatten(2, (len(corners[0]), -1)), call.groups)


def _stuffed(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Zeros between the pixels, which makes a transposed convolution an ordinary one."""
    if all(s == 1 for s in stride):
        return x
    stuffed = x.new_zeros(*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)))
    stuffed[(slice(None), slice(None), *(slice(None, None, s) for s in stride))] = x
    return stuffed


def _by_group(picked: Tensor, groups: int) -> Tensor:
    """(images, channels, positions, kernel) to (groups, images * positions, channels of a group * kernel)."""
    images, channels, places = picked.shape[:3]
    split = picked.unflatten(1, (groups, channels // groups))
    return split.permute(1, 0, 3, 2, 4).reshape(groups, images * places, -1)


def viewed(call: WeightCall, tensor: Tensor, other: Tensor) -> Tensor:
    """What the call sees of its weight `tensor`, seen of another tensor of the same layout."""
    view = call.operand
    offset = int(view.storage_offset()) - int(tensor.storage_offset())
    return other.as_strided(view.shape, view.stride(), offset)


def read_matrix(call: WeightCall) -> Tensor:
    """The weight as (groups, outputs of a group, inputs of a group), a copy."""
    weight = call.operand.detach()
    if call.is_convolution:
        if call.settings[3]:
            weight = weight.unflatten(0, (call.groups, -1)).transpose(1, 2).flip(tuple(range(3, weight.dim() + 1)))
            return weight.flatten(3).flatten(2).clone()
        return weight.unflatten(0, (call.groups, -1)).flatten(2).clone()
    weight = weight[0] if weight.dim() == 3 else weight
    return (weight if _outputs_first(call) else weight.t()).unsqueeze(0).clone()


def write_matrix(call: WeightCall, matrix: Tensor) -> None:
    """Put a matrix of the shape of `read_matrix` into the weight, in place."""
    weight = call.operand.detach()
    matrix = matrix.to(weight.dtype)
    if not call.is_convolution:
        weight = weight[0] if weight.dim() == 3 else weight
        weight.copy_(matrix[0] if _outputs_first(call) else matrix[0].t())
    elif call.settings[3]:
        kernel = weight.shape[2:]
        shaped = matrix.unflatten(2, (-1, *kernel)).flip(tuple(range(3, 3 + len(kernel))))
        weight.copy_(shaped.transpose(1, 2).flatten(0, 1))
    else:
        weight.copy_(matrix.reshape(weight.shape))


def _outputs_first(call: WeightCall) -> bool:
    return call.input_axis == -2 or call.outputs_first


def unit_columns(call: WeightCall, cut: Slice) -> list[list[tuple[int, Tensor]]]:
    """For every unit of a consumer's slice, the convolution group and the columns of the matrix that it owns there."""
    assert call.sink is not None
    if call.is_convolution:
        area = call.operand[0, 0].numel()
        width = call.sink.port.size // call.groups
        place = {c: (c // width, c % width) for c in range(call.sink.port.size)}
    else:
        area = 1
        place = {c: (0, column) for column, c in enumerate(call.sink.coordinates)}
    units = []
    for coordinates in cut.coordinates:
        by_group: dict[int, list[int]] = {}
        for c in coordinates:
            if c in place:
                g, column = place[c]
                by_group.setdefault(g, []).extend(range(column * area, (column + 1) * area))
        units.append([(g, torch.tensor(columns)) for g, columns in by_group.items()])
    return units
