"""The distillation loss."""

from __future__ import annotations

import pytest
import torch

from compressor.tasks.softmax import distillation_loss


def test_the_loss_is_zero_for_the_same_answers_and_positive_for_others() -> None:
    logits = torch.randn(5, 4)
    assert float(distillation_loss(logits, logits + 3.0, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(distillation_loss(logits, -logits, 2.0)) > 0.01


def test_the_loss_is_the_divergence_from_the_softened_teacher() -> None:
    own, teacher, temperature = torch.randn(6, 3), torch.randn(6, 3), 3.0
    p, q = (teacher / temperature).softmax(1), (own / temperature).softmax(1)
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    assert float(distillation_loss(own, teacher, temperature)) == pytest.approx(float(expected), rel=1e-5)


def test_descending_the_loss_reaches_the_teacher() -> None:
    own, teacher = torch.zeros(2, 3, requires_grad=True), torch.tensor([[4.0, 0.0, 0.0], [0.0, 0.0, 4.0]])
    for _ in range(500):
        (gradient,) = torch.autograd.grad(distillation_loss(own, teacher, 4.0), own)
        own = (own - 2.0 * gradient).detach().requires_grad_()
    assert torch.allclose(own.softmax(1), teacher.softmax(1), atol=0.02)
