"""Cholesky factors of matrices that rounding may have made indefinite."""

from __future__ import annotations

import torch
from torch import Tensor

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
