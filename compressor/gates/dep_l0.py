"""Dep-L0: hard concrete gates whose logits come from a chain over the groups, so that they are learnt together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.gates.base import BOUND, OPEN, bounded, unbounded
from compressor.gates.l0_hc import HardConcrete

COUPLING = 0.1
"""How much a step of a link changes the logits after it, relative to a step of their own bias."""


class DepL0(HardConcrete):
    """The logits of a group are `c tanh((A h + b) / c)` of the logits h of the group before it; the first reads ones.

    A starts at zero and b where all gates are open: with A drawn at random a tenth of the gates would start closed,
    which a network trained from scratch survives and a pretrained one does not. h is divided by its length and its
    largest value, so that a step changes `A h` about as much as b.

    Args:
        sizes: Number of units of every group.
        order: `forward` chains from the input to the output, `backward` the other way round.
        residual: Add a free logit per unit, so that the chain only has to learn what units share.
    """

    name: ClassVar[str] = "dep_l0"
    summary: ClassVar[str] = "hard concrete gates, logits chained from group to group"
    paper: ClassVar[str] = "Li & Ji, Dep-L0: Improving L0-based Network Sparsification, ECML-PKDD 2021"

    def __init__(
        self, sizes: Sequence[int], order: Literal["forward", "backward"] = "forward", residual: bool = False
    ) -> None:
        super().__init__(sizes)
        if order not in ("forward", "backward"):
            cure = "choose forward or backward"
            raise InputError(f"unknown order '{order}'", where="compress.options.order", cure=cure)
        self.backwards = order == "backward"
        widths = [*sizes][:: -1 if self.backwards else 1]
        self.links = nn.ModuleList(nn.Linear(i, o) for i, o in zip([1, *widths], widths, strict=False))
        self.free: nn.Parameter | None
        self.register_parameter("free", nn.Parameter(torch.zeros(sum(sizes))) if residual else None)
        self.start(torch.full((sum(sizes),), OPEN))

    def logits(self, inputs: tuple[Tensor, ...]) -> Tensor:
        carried, parts = self._chain()[0].bias.new_ones(1), []
        for link in self._chain():
            carried = bounded(link(carried * (COUPLING / (BOUND * len(carried)))))
            parts.append(carried)
        logits = torch.cat(parts[::-1] if self.backwards else parts)
        return logits if self.free is None else logits + self.free

    def start(self, logits: Tensor) -> None:
        parts = unbounded(logits).split(self.sizes)
        with torch.no_grad():
            for link, part in zip(self._chain(), parts[::-1] if self.backwards else parts, strict=True):
                link.weight.zero_()
                link.bias.copy_(part)

    def _chain(self) -> list[nn.Linear]:
        return [link for link in self.links if isinstance(link, nn.Linear)]
