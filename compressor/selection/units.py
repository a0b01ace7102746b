"""Sums over the elements of a tensor that belong to each unit of a group."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from compressor.structure.groups import Slice


def sum_per_unit(values: Tensor, part: Slice) -> Tensor:
    """Sum `values`, one for every element of the tensor of `part`, over the elements of each unit.

    Returns:
        One float64 sum per unit, on the CPU.
    """
    values = values.detach().double().cpu()
    if part.axis == 1 and part.conv_groups > 1:  # (groups, outputs, inputs of a group, kernel) -> one sum per input
        sums = values.unflatten(0, (part.conv_groups, -1)).flatten(3).sum((1, 3)).flatten()
    else:
        sums = values.movedim(part.axis, 0).reshape(values.shape[part.axis], -1).sum(1)
    owner = torch.repeat_interleave(torch.tensor([len(unit) for unit in part.coordinates]))
    coordinates = torch.tensor(list(chain.from_iterable(part.coordinates)), dtype=torch.long)
    return torch.zeros(len(part.coordinates), dtype=torch.double).index_add(0, owner, sums[coordinates])
