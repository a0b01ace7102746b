"""Masks: the left side of "mask = shrink"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compressor.structure.groups import Slice
from compressor.structure.plan import Plan
from compressor.structure.surgery.norms import kept_norms
from compressor.structure.surgery.shrink import check_fits
from compressor.structure.tensors import is_run, take
from compressor.support.modules import named_tensors


@contextmanager
def masked(model: nn.Module, plan: Plan) -> Iterator[nn.Module]:
    """Zero the dropped units at the inputs of all their consumers; the weights come back on leaving.

    A consumer is linear in its inputs, so zeroing an input channel is zeroing the weights that read it. Layer norms
    over the channels of inexact groups look at the kept ones only.

    Args:
        model: The network with its original widths.
        plan: What to keep.

    Yields:
        The same network, masked.

    Raises:
        InputError: The plan was made for another architecture.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> plan = compressor.Plan.uniform(compressor.find_groups(model, torch.zeros(1, 4)), keep=0.5)
        >>> with compressor.masked(model, plan):
        ...     int((model[2].weight == 0).all(dim=0).sum())
        4
        >>> int((model[2].weight == 0).all(dim=0).sum())
        0
    """
    tensors = named_tensors(model)
    check_fits(tensors, (s for p in plan.groups for s in p.group.slices))
    saved: list[tuple[Tensor, int, list[int], Tensor]] = []
    try:
        for planned in plan.groups:
            for s in planned.group.slices:
                if s.role == "consumer" and planned.dropped:
                    for rows, columns in _columns(tensors[s.tensor].detach(), s, planned.dropped):
                        values = take(rows, s.axis, columns)
                        saved.append((rows, s.axis, columns, values.clone() if is_run(columns) else values))
                        _zero(rows, s.axis, columns)
        with kept_norms(model, plan):
            yield model
    finally:
        for rows, axis, columns, values in reversed(saved):
            _write(rows, axis, columns, values)


def zero_columns(weight: Tensor, cut: Slice, units: tuple[int, ...]) -> None:
    """Zero, in place, the weights of a consumer that read the given units."""
    for rows, columns in _columns(weight, cut, units):
        _zero(rows, cut.axis, columns)


def _zero(rows: Tensor, axis: int, columns: list[int]) -> None:
    if is_run(columns):
        take(rows, axis, columns).zero_()
    else:
        rows.index_fill_(axis, torch.tensor(columns, dtype=torch.long, device=rows.device), 0)


def _write(rows: Tensor, axis: int, columns: list[int], values: Tensor) -> None:
    if is_run(columns):
        take(rows, axis, columns).copy_(values)
    else:
        rows.index_copy_(axis, torch.tensor(columns, dtype=torch.long, device=rows.device), values)


def _columns(weight: Tensor, cut: Slice, units: tuple[int, ...]) -> Iterator[tuple[Tensor, list[int]]]:
    """Views of a consumer's weight, one for each of its convolution groups, and the columns that read the units."""
    width, dropped = weight.shape[cut.axis], sorted(c for u in units for c in cut.coordinates[u])
    parts = weight.chunk(cut.conv_groups) if cut.conv_groups > 1 else (weight,)
    for g, rows in enumerate(parts):
        yield rows, [c - g * width for c in dropped if g * width <= c < (g + 1) * width]
