"""Straight-through gates: open where a trained number is positive, with the gradient of the identity."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from compressor.gates.base import OPEN, FreeGate
from compressor.gates.straight import EqualGradients, through


class StraightThrough(FreeGate):
    """Steps of the logits and logistic noise, without which gates that are alike close all at once.

    The gradients of the groups are made equally large before they reach the logits.
    """

    name: ClassVar[str] = "ste"
    summary: ClassVar[str] = "step gates with straight-through gradients, normalised per group"
    paper: ClassVar[str] = "Tang et al., Automatic Sparse Connectivity Learning for Neural Networks, TNNLS 2022"
    bound: ClassVar[float] = OPEN

    def sample(self, logits: Tensor) -> Tensor:
        u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        return EqualGradients.apply(_straight(self.value(logits + u.logit()), logits), self.sizes)

    def value(self, logits: Tensor) -> Tensor:
        return (logits > 0).to(logits.dtype)

    def probability(self, logits: Tensor) -> Tensor:
        return _straight(torch.sigmoid(logits), logits)


def _straight(gates: Tensor, logits: Tensor) -> Tensor:
    return through(gates, logits / OPEN)
