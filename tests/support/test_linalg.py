"""Gram matrices: half of the products are enough."""

from __future__ import annotations

import pytest
import torch

from compressor.support.linalg import BLOCK, SINGLE, add_gram, gram, mirror


@pytest.mark.parametrize("columns", [3, BLOCK, BLOCK + 5, SINGLE + 30])
def test_a_gram_matrix_is_that_of_all_rows(columns: int) -> None:
    torch.manual_seed(0)
    rows = torch.randn(2, 40, columns)
    total = torch.zeros(2, columns, columns, dtype=torch.float32 if columns > SINGLE else torch.float64)
    for part in rows.split(15, 1):
        add_gram(total, part)
    mirror(total)
    exact = rows.double().transpose(1, 2) @ rows.double()
    assert torch.equal(total, total.transpose(1, 2))
    torch.testing.assert_close(total.double(), exact, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(gram(rows[0]), total[0], rtol=1e-4, atol=1e-3)
