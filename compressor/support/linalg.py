"""Gram matrices, in the smallest safe precision and with half of the products."""

from __future__ import annotations

import torch
from torch import Tensor

SINGLE = 1_000
"""With more columns than this, single precision serves: the ridge stays far above its rounding."""
BLOCK = 512


def precision(columns: int) -> torch.dtype:
    """In which precision a Gram matrix of so many columns is summed up and factorised."""
    return torch.float32 if columns > SINGLE else torch.float64


def add_gram(total: Tensor, x: Tensor) -> None:
    """Add x^T x to `total`, of which only the blocks on and below the diagonal count.

    Args:
        total: (groups, columns, columns), changed in place; `mirror` fills in the rest in the end.
        x: Rows, (groups, rows, columns), in single precision.
    """
    columns = x.shape[2]
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        for own, rows in zip(total[:, start:end, :end], x, strict=True):
            if own.dtype == x.dtype:
                own.addmm_(rows[:, start:end].t(), rows[:, :end])
            else:
                own += rows[:, start:end].t() @ rows[:, :end]


def mirror(total: Tensor) -> None:
    """Copy what lies below the diagonal to above it."""
    columns = total.shape[2]
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        total[:, :start, start:end] = total[:, start:end, :start].transpose(1, 2)


def gram(x: Tensor) -> Tensor:
    """x^T x of rows (rows, columns) in single precision."""
    total = x.new_zeros(1, x.shape[1], x.shape[1], dtype=precision(x.shape[1]))
    add_gram(total, x.unsqueeze(0))
    mirror(total)
    return total[0]


SMALLEST = 1e-30


def factor(matrix: Tensor, ridge: float = 0.0) -> Tensor:
    """Lower Cholesky factor of `matrix + ridge * I`; the ridge grows tenfold until there is one.

    Args:
        matrix: Symmetric, (n, n).
        ridge: What to add to the diagonal.
    """
    while True:
        shifted = matrix.clone()
        shifted.diagonal().add_(ridge)
        result, failed = torch.linalg.cholesky_ex(shifted)
        if not failed:
            return result
        scale = float(matrix.diagonal().abs().mean())
        ridge = 10 * max(ridge, torch.finfo(matrix.dtype).eps * scale, SMALLEST)
