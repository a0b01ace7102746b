"""Hard concrete gates: samples that are exactly 0 or 1 with positive probability, and differentiable between."""

from __future__ import annotations

from math import log
from typing import ClassVar

import torch
from torch import Tensor

from compressor.gates.base import FreeGate, Gate

BETA, LOW, HIGH = 2 / 3, -0.1, 1.1
"""Temperature of the concrete distribution, and the interval to which it is stretched before it is cut to 0..1."""


class HardConcrete(Gate):
    """The distribution, whatever the logits come from (section 4 of the paper of `l0_hc`)."""

    def sample(self, logits: Tensor) -> Tensor:
        u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        return _stretch(torch.sigmoid((u.logit() + logits) / BETA))

    def value(self, logits: Tensor) -> Tensor:
        return _stretch(torch.sigmoid(logits))

    def probability(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits - BETA * log(-LOW / HIGH))


class IndependentHardConcrete(FreeGate, HardConcrete):
    """Every unit has a logit of its own."""

    name: ClassVar[str] = "l0_hc"
    summary: ClassVar[str] = "hard concrete gates, one free logit per unit"
    paper: ClassVar[str] = "Louizos et al., Learning Sparse Neural Networks through L0 Regularization, ICLR 2018"


def _stretch(concrete: Tensor) -> Tensor:
    return (concrete * (HIGH - LOW) + LOW).clamp(0, 1)
