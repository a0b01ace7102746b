"""Gates from a small network that looks at the data; averaged, they are a plan like any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.gates.base import OPEN, bounded, unbounded
from compressor.gates.l0_hc import HardConcrete

FEATURES, HIDDEN = 64, 64
"""Means of neighbouring input values that the network is shown, and the width of its hidden layer."""
CALM = 100.0
"""A step changes the hidden layer this much less than a logit."""


class GateNet(HardConcrete):
    """One hidden layer, shared by all groups, from a coarse view of each input to the logits of all units.

    The logits of a batch are the mean over its inputs, so all inputs of a batch pass the same gates; what the ranking
    is made from is their average over many batches.
    """

    name: ClassVar[str] = "gate_net"
    summary: ClassVar[str] = "hard concrete gates from a network that looks at the data, static after averaging"
    paper: ClassVar[str] = "after Verma et al., A Network Pruning Network Approach to Deep Model Compression, WACV 2020"

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes)
        self.trunk, self.heads = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, sum(sizes))
        with torch.no_grad():
            self.trunk.weight.mul_(CALM)
        self.start(torch.full((sum(sizes),), OPEN))

    def logits(self, inputs: tuple[Tensor, ...]) -> Tensor:
        seen = inputs[0].to(self.trunk.weight.dtype).flatten(1).unsqueeze(1)
        hidden = self.trunk(F.adaptive_avg_pool1d(seen, FEATURES).squeeze(1) / CALM)
        features = F.layer_norm(F.relu(hidden), (HIDDEN,)).mean(0)
        return bounded(self.heads(features / HIDDEN))

    def start(self, logits: Tensor) -> None:
        with torch.no_grad():
            self.heads.weight.zero_()
            self.heads.bias.copy_(unbounded(logits))
