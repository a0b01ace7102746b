"""Annealed direct sparsity control: no penalty, the units with the lowest scores go as a schedule says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.errors import InputError
from compressor.gates.base import OPEN, Gate
from compressor.selection.units import sum_per_unit
from compressor.structure.groups import ChannelGroup, Groups

FRONT = 10.0
"""How much earlier than evenly the units go: mu of the schedule."""
SHARPNESS = 200.0
"""Logits are so many times the distance of a score, 1 on average, from the threshold."""


class DirectControl(Gate):
    """A unit's score is the scale of its batch norms (the weights that make it, where there is none), relative to the
    mean of its group. Before every step the threshold is put where the rest costs what the schedule allows.

    Args:
        sizes: Number of units of every group.
        scope: `global` has one threshold for all groups, `group` closes the same share of each.
    """

    name: ClassVar[str] = "dsc"
    summary: ClassVar[str] = "no penalty: the units with the smallest scales are closed by a schedule"
    paper: ClassVar[str] = "Guo, She & Barbu, Network Pruning via Annealing and Direct Sparsity Control, IJCNN 2021"
    steered: ClassVar[bool] = False
    prior: Tensor
    threshold: Tensor

    def __init__(self, sizes: Sequence[int], scope: Literal["global", "group"] = "global") -> None:
        super().__init__(sizes)
        if scope not in ("global", "group"):
            cure = "choose global or group"
            raise InputError(f"'{scope}' is no scope of a threshold", where="compress.options.scope", cure=cure)
        self.scope = scope
        self.register_buffer("prior", torch.zeros(sum(sizes)))
        self.register_buffer("threshold", torch.zeros(sum(sizes)))

    def attach(self, model: nn.Module, groups: Groups, share: Callable[[Tensor], Tensor]) -> None:
        self.scores = lambda: torch.cat([_scores(group, model) for group in groups]).to(self.prior)
        self.share = share

    def logits(self, inputs: tuple[Tensor, ...]) -> Tensor:
        return SHARPNESS * (self.scores() + self.prior - self.threshold)

    def start(self, logits: Tensor) -> None:
        self.prior.copy_(logits / OPEN - 1)

    def sample(self, logits: Tensor) -> Tensor:
        return self.value(logits)

    def value(self, logits: Tensor) -> Tensor:
        return (logits > 0).to(logits.dtype)

    def probability(self, logits: Tensor) -> Tensor:
        return self.value(logits)

    def excess(self, progress: float) -> float:
        return max(0.0, (1 - progress) / (progress * FRONT + 1))

    def meet(self, share: float) -> None:
        scores = self.scores() + self.prior
        low, high = 0.0, 1.0
        for _ in range(len(scores).bit_length() + 1):
            middle = (low + high) / 2
            met = self.share((scores > self._thresholds(scores, middle)).to(scores)) <= share
            low, high = (low, middle) if met else (middle, high)
        self.threshold.copy_(self._thresholds(scores, high))

    def _thresholds(self, scores: Tensor, closed: float) -> Tensor:
        """Thresholds that close this share of the units, but never the best one of a group."""
        parts = scores.split(self.sizes)
        among = [scores] * len(parts) if self.scope == "global" else parts
        below = [_lowest(own, closed) for own in among]
        limits = [torch.minimum(limit, part.max() - 1e-6) for limit, part in zip(below, parts, strict=True)]
        return torch.stack(limits).repeat_interleave(torch.tensor(self.sizes, device=scores.device))


def _lowest(scores: Tensor, share: float) -> Tensor:
    """A threshold between the lowest scores, which are `share` of all, and the others."""
    count, ordered = round(share * len(scores)), scores.sort().values
    return ordered[max(0, count - 1) : count + 1].mean() if count else ordered[0] - 1


def _scores(group: ChannelGroup, model: nn.Module) -> Tensor:
    """Size of the units' scales, or of the weights that make them, 1 on average over the group."""
    norms = [s for s in group.slices if isinstance(model.get_submodule(s.layer), _BatchNorm)]
    scales = [s for s in norms if s.tensor.endswith(".weight")]
    tensors = dict(model.named_parameters())
    weights = [s for s in group.slices if s.role == "producer" and s.tensor in tensors]
    sums = torch.stack([sum_per_unit(tensors[s.tensor].abs(), s) for s in scales or weights])
    return (sums / sums.mean(1, keepdim=True).clamp_min(torch.finfo(sums.dtype).tiny)).mean(0)
