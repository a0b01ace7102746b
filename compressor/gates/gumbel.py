"""Gumbel gates: hard samples, gradients of the relaxed ones, and one learnt scale per group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from compressor.gates.base import FreeGate
from compressor.gates.straight import through

WARM, COLD = 1.0, 0.1
"""The temperature of the relaxation at the beginning of learning and at its end."""
CALM = 100.0
"""A step changes a scale this much less than a logit."""


class Gumbel(FreeGate):
    """Two-class Gumbel-softmax per unit: a gate is open where logit plus logistic noise is positive.

    Args:
        sizes: Number of units of every group.
        rescale: Learn one factor per group, which makes up for what the closed units do not deliver any more.
    """

    name: ClassVar[str] = "gumbel"
    summary: ClassVar[str] = "Gumbel-softmax gates, hard samples, a learnt scale per group"
    paper: ClassVar[str] = "Dupont et al., Extracting Effective Subnetworks with Gumbel-Softmax, ICIP 2022"

    owner: Tensor

    def __init__(self, sizes: Sequence[int], rescale: bool = True) -> None:
        super().__init__(sizes)
        self.gain = nn.Parameter(torch.zeros(len(self.sizes)), requires_grad=rescale)
        self.register_buffer("owner", torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)), persistent=False)
        self.temperature = WARM

    def sample(self, logits: Tensor) -> Tensor:
        u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        noisy = logits + u.logit()
        return through((noisy > 0).to(logits.dtype), torch.sigmoid(noisy / self.temperature))

    def value(self, logits: Tensor) -> Tensor:
        return (logits > 0).to(logits.dtype)

    def probability(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

    def scale(self, gates: Tensor) -> Tensor:
        return gates * (1 + self.gain / CALM)[self.owner]

    def anneal(self, progress: float) -> None:
        self.temperature = WARM * (COLD / WARM) ** progress
