"""What single units contribute to the outputs of a consumer, and how far these contributions are alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from compressor.selection.moments import Moments

SKETCH = 128
"""Random combinations that stand for the outputs of a wide consumer: scalar products stay what they are on average."""
ROWS = 256
"""Rows of a wide consumer that are multiplied at a time."""


def contributions(
    moments: Moments, g: int, members: Mapping[int, Tensor], center: bool, scale: Tensor | float = 1.0
) -> Tensor:
    """Mean scalar products (or covariances) of what units add to the outputs of a consumer, (units, units).

    Where a matrix of all inputs would be too large, no matrix here is larger than the units times some rows.

    Args:
        moments: The consumer.
        g: Its convolution group.
        members: Columns of each unit, as many for every one.
        center: Whether a change of the mean output can be absorbed.
        scale: Weights of the errors of the outputs, (outputs,).
    """
    weight = moments.weight[g] * torch.as_tensor(scale, dtype=torch.float64).reshape(-1, 1)
    columns = torch.stack(list(members.values()))
    return (_from_rows if moments.wide else _from_products)(moments, g, weight, columns, center)


def _from_products(moments: Moments, g: int, weight: Tensor, columns: Tensor, center: bool) -> Tensor:
    """Sums over blocks of the products of inputs, each times the product of the weights that read them."""
    index = columns.flatten()
    products = moments.second(g, index, center) * (weight[:, index].t() @ weight[:, index])
    return products.unflatten(0, columns.shape).unflatten(2, columns.shape).sum((1, 3), dtype=torch.float64)


def _from_rows(moments: Moments, g: int, weight: Tensor, columns: Tensor, center: bool) -> Tensor:
    """Products of the contributions themselves, row by row."""
    if len(weight) > SKETCH:
        draw = torch.randn(SKETCH, len(weight), generator=torch.Generator().manual_seed(0), dtype=weight.dtype)
        weight = draw @ weight / SKETCH**0.5
    reading = weight.float()[:, columns].permute(1, 2, 0)
    away = (moments.mean[g] - moments.origin[g] if center else -moments.origin[g]).float()
    total = torch.zeros(len(columns), len(columns), dtype=torch.float64)
    for rows in moments.kept_rows[0][g].split(ROWS):
        read = (rows - away)[:, columns].transpose(0, 1)
        parts = (read @ reading).flatten(1)
        total += parts @ parts.t()
    return total / moments.rows
