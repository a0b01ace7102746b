"""The divergence of networks whose outputs are numbers."""

from __future__ import annotations

import pytest
import torch

from compressor.tasks.squared import projection, squared_errors


def test_errors_are_relative_to_the_variance_of_the_teacher() -> None:
    teacher = (torch.randn(50, 3), 100 * torch.randn(50, 2, 4))
    means = tuple(torch.full_like(tensor, float(tensor.mean())) for tensor in teacher)
    assert float(squared_errors(means, teacher).mean()) == pytest.approx(2, rel=1e-5)


def test_a_constant_teacher_gives_finite_errors() -> None:
    assert squared_errors(torch.ones(2, 1), torch.zeros(2, 1)).isfinite().all()


def test_squares_of_projections_are_the_errors() -> None:
    torch.manual_seed(0)
    teacher = (torch.randn(40, 3), 100 * torch.randn(40, 2, 4))
    change = (0.1 * torch.randn(2, 3), 5 * torch.randn(2, 2, 4))
    generator, squares = torch.Generator().manual_seed(1), list[float]()
    for _ in range(4000):
        squares.append(float(projection(change, teacher, generator)) ** 2 / 2)
    moved = (teacher[0].clone(), teacher[1].clone())
    moved[0][:2] += change[0]
    moved[1][:2] += change[1]
    expected = float(squared_errors(moved, teacher).sum())
    assert sum(squares) / len(squares) == pytest.approx(expected, rel=0.1)
