"""Divergences of networks that answer with class scores, the classes on the second axis: of softmax probabilities."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.support.batches import floating

TEMPERATURE = 4.0
"""Softens the outputs of which `projection` takes the Fisher information, so that images of which the network is sure
count as well."""


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Divergence of the softened answers from the teacher's (Hinton, Vinyals & Dean, 2015).

    Args:
        logits: Answers of the network, (batch, classes).
        teacher_logits: Answers of the teacher to the same images, (batch, classes).
        temperature: Divides both logits before the softmax; larger values weigh the small probabilities more.

    Returns:
        `temperature² · KL(teacher || network)`, averaged over the batch: a scalar of which the gradient keeps its size
        when the temperature changes.
    """
    own = F.log_softmax(logits.float() / temperature, dim=1)
    target = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(own, target, reduction="batchmean", log_target=True)


def divergences(outputs: Any, teacher: Any) -> Tensor:
    """KL divergence of each example from the teacher, (batch,): averaged over places, summed over all outputs."""
    pairs = zip(floating(outputs), floating(teacher), strict=True)
    logs = [(out.log_softmax(1), target.log_softmax(1)) for out, target in pairs]
    return torch.stack([per_example((target.exp() * (target - out)).sum(1)) for out, target in logs]).sum(0)


def projection(outputs: Any, generator: torch.Generator) -> Tensor:
    """`v · outputs` for a random `v` whose covariance is the Fisher information of the softened outputs.

    The KL divergence that a change `d` of the outputs brings is then `E[(v · d)²] / 2` to second order, times the
    square of the temperature.
    """
    return torch.stack([_projected(out, generator) for out in floating(outputs)]).sum()


def per_example(values: Tensor) -> Tensor:
    """The mean of each example, (batch,)."""
    return values.reshape(len(values), -1).mean(1)


def _projected(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """`v · outputs`, averaged over the places of an image."""
    shares = (outputs.detach() / TEMPERATURE).softmax(1)
    signs = torch.randint(0, 2, shares.shape, generator=generator).to(shares) * 2 - 1
    spread = shares.sqrt() * signs
    vector = spread - shares * spread.sum(1, keepdim=True)
    return (outputs * vector).sum() / (outputs[0, 0].numel() ** 0.5)
