from __future__ import annotations

import torch

from compressor.support.linalg import factor


def test_it_is_the_cholesky_factor() -> None:
    root = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = root @ root.t() + torch.eye(5, dtype=torch.float64)
    assert torch.allclose(factor(matrix), torch.linalg.cholesky(matrix))
    assert torch.allclose(factor(matrix, 2.0), torch.linalg.cholesky(matrix + 2 * torch.eye(5, dtype=torch.float64)))


def test_singular_and_zero_matrices_have_one_too() -> None:
    ones = torch.ones(4, 4, dtype=torch.float64)
    result = factor(ones - 1e-15 * torch.eye(4, dtype=torch.float64))
    assert torch.allclose(result @ result.t(), ones, atol=1e-6)
    assert factor(torch.zeros(3, 3, dtype=torch.float64)).isfinite().all()
