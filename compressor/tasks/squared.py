"""The divergence of networks whose outputs are numbers: the squared error, relative to the teacher's variance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compressor.support.batches import floating

FLAT = 1e-12
"""Least variance that errors are divided by: a teacher whose outputs are constant has none."""


def squared_errors(outputs: Any, teacher: Any) -> Tensor:
    """Squared errors of each example, (batch,), summed over all floating-point output tensors.

    Each tensor counts by its mean squared error, relative to the variance of the teacher's over the whole batch.
    """
    pairs = zip(floating(outputs), floating(teacher), strict=True)
    errors = [((out - target) ** 2).reshape(len(out), -1).mean(1) / _variance(target) for out, target in pairs]
    return torch.stack(errors).sum(0)


def projection(outputs: Any, teacher: Any, generator: torch.Generator) -> Tensor:
    """`v · outputs` with independent random signs, scaled so that `E[(v · d)²] / 2` is the squared error of `d`.

    Args:
        outputs: Of some examples, with gradients.
        teacher: The outputs of a whole batch, which give the variances.
        generator: Draws the signs.
    """
    pairs = zip(floating(outputs), floating(teacher), strict=True)
    return torch.stack([_projected(out, _variance(target), generator) for out, target in pairs]).sum()


def _projected(output: Tensor, variance: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
    return (output * signs).sum() * (2 * len(output) / (output.numel() * variance)).sqrt()


def _variance(target: Tensor) -> Tensor:
    return target.detach().var(correction=0).clamp_min(FLAT)
