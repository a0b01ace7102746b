"""Distillation: the network learns to answer as its teacher does (Hinton, Vinyals & Dean, 2015)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Divergence of the softened answers from the teacher's.

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
