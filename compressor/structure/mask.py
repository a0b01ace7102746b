"""Masks: the left side of "mask = shrink"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compressor.structure.groups import Slice
from compressor.structure.plan import Plan
from compressor.structure.shrink import check_fits


@contextmanager
def masked(model: nn.Module, plan: Plan) -> Iterator[nn.Module]:
    """Zero the dropped units at the inputs of all their consumers; the weights come back on leaving.

    A consumer is linear in its inputs, so zeroing an input channel is zeroing the weights that read it.
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    check_fits(tensors, (s for p in plan.groups for s in p.group.slices))
    saved: dict[str, Tensor] = {}
    try:
        for planned in plan.groups:
            for s in planned.group.slices:
                if s.role == "consumer" and planned.dropped:
                    tensor = tensors[s.tensor].detach()
                    saved.setdefault(s.tensor, tensor.clone())
                    zero_columns(tensor, s, planned.dropped)
        yield model
    finally:
        for name, values in saved.items():
            tensors[name].detach().copy_(values)


def zero_columns(weight: Tensor, cut: Slice, units: tuple[int, ...]) -> None:
    """Zero, in place, the weights of a consumer that read the given units."""
    if cut.conv_groups == 1:
        columns = torch.tensor([c for u in units for c in cut.coordinates[u]], device=weight.device)
        weight.index_fill_(cut.axis, columns, 0)
        return
    width, rows = weight.shape[cut.axis], weight.shape[0] // cut.conv_groups
    for unit in units:
        for c in cut.coordinates[unit]:
            g, column = divmod(c, width)
            weight[g * rows : (g + 1) * rows].select(cut.axis, column).zero_()
