"""Masks: the left side of "mask = shrink"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compressor.structure.groups import Slice
from compressor.structure.norms import kept_norms
from compressor.structure.plan import Plan
from compressor.structure.shrink import check_fits


@contextmanager
def masked(model: nn.Module, plan: Plan) -> Iterator[nn.Module]:
    """Zero the dropped units at the inputs of all their consumers; the weights come back on leaving.

    A consumer is linear in its inputs, so zeroing an input channel is zeroing the weights that read it. Layer norms
    over the channels of inexact groups look at the kept ones only.
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    check_fits(tensors, (s for p in plan.groups for s in p.group.slices))
    saved: list[tuple[Tensor, int, Tensor, Tensor]] = []
    try:
        for planned in plan.groups:
            for s in planned.group.slices:
                if s.role == "consumer" and planned.dropped:
                    for rows, columns in _columns(tensors[s.tensor].detach(), s, planned.dropped):
                        saved.append((rows, s.axis, columns, rows.index_select(s.axis, columns)))
                        rows.index_fill_(s.axis, columns, 0)
        with kept_norms(model, plan):
            yield model
    finally:
        for rows, axis, columns, values in reversed(saved):
            rows.index_copy_(axis, columns, values)


def zero_columns(weight: Tensor, cut: Slice, units: tuple[int, ...]) -> None:
    """Zero, in place, the weights of a consumer that read the given units."""
    for rows, columns in _columns(weight, cut, units):
        rows.index_fill_(cut.axis, columns, 0)


def _columns(weight: Tensor, cut: Slice, units: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of a consumer's weight, one for each of its convolution groups, and the columns that read the units."""
    width, dropped = weight.shape[cut.axis], [c for u in units for c in cut.coordinates[u]]
    parts = weight.chunk(cut.conv_groups) if cut.conv_groups > 1 else (weight,)
    for g, rows in enumerate(parts):
        own = [c - g * width for c in dropped if g * width <= c < (g + 1) * width]
        yield rows, torch.tensor(own, dtype=torch.long, device=weight.device)
