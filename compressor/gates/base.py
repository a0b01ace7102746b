"""What a gate is: a number between 0 and 1 on every unit, learnt while the network trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from compressor.structure.groups import Groups

OPEN = 4.0
"""The logit at which gates start: all but certainly open."""
BOUND = 6.0
"""The largest absolute logit. At the published ln 100, one sample in twenty of an open gate is not 1."""


class Gate(nn.Module, ABC):
    """The gates of all units of a network. One file of this package per kind.

    All vectors have one entry per unit, (units,), the groups one after the other in their order. A large logit is an
    open gate: 0 lies about half-way, and units are ranked by their logits in the end.

    Args:
        sizes: Number of units of every group.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    steered: ClassVar[bool] = True
    """Whether the penalty drives the gates to the budget; otherwise `meet` does."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)

    @abstractmethod
    def logits(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The logits, from the parameters and, for gates that look at the data, from a batch of inputs."""

    @abstractmethod
    def start(self, logits: Tensor) -> None:
        """Begin with these logits."""

    @abstractmethod
    def sample(self, logits: Tensor) -> Tensor:
        """Draw gates from the global generator, differentiable with respect to the logits."""

    @abstractmethod
    def value(self, logits: Tensor) -> Tensor:
        """The gates without chance; 0 is closed."""

    @abstractmethod
    def probability(self, logits: Tensor) -> Tensor:
        """The probability that a sample is not 0, differentiable with respect to the logits."""

    def scale(self, gates: Tensor) -> Tensor:
        """What the units are multiplied by when their gates are these."""
        return gates

    def excess(self, progress: float) -> float:
        """The share of the cost above the target that is still allowed, from 1 at `progress` 0 to 0 at 1."""
        return 1 - progress

    def anneal(self, progress: float) -> None:
        """Told before every step how much of the learning is done, 0 to 1."""

    def attach(self, model: nn.Module, groups: Groups, share: Callable[[Tensor], Tensor]) -> None:
        """Told once of the network, its groups, and what share of its cost is left with given probabilities."""

    def meet(self, share: float) -> None:
        """Close gates until `share` of the cost is left; only asked of gates that are not `steered`."""


class FreeGate(Gate):
    """Gates whose logits are parameters, one per unit, independent of each other and bounded, so that none is lost."""

    bound: ClassVar[float] = BOUND

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes)
        self.logit = nn.Parameter(torch.full((sum(sizes),), OPEN))

    def logits(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.logit.clamp_(-self.bound, self.bound)
        return self.logit

    def start(self, logits: Tensor) -> None:
        with torch.no_grad():
            self.logit.copy_(logits)


def bounded(raw: Tensor) -> Tensor:
    """Logits between `-BOUND` and `BOUND`, of slope 1 about 0."""
    return BOUND * torch.tanh(raw / BOUND)


def unbounded(logits: Tensor) -> Tensor:
    """What `bounded` maps to these logits; those at the bound are moved a little away from it."""
    return BOUND * (logits / BOUND).clamp(-0.95, 0.95).atanh()
