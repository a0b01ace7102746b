"""The course of learning gates: open, learning under an annealed target, hard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.gates.base import Gate
from compressor.gates.budget import ExpectedCost, Fixed, Lagrangian
from compressor.gates.network import Gated

ANNEALED = 0.6
"""Share of learning after which the target holds in full."""
WINDOW = 0.05
"""Share of learning over which the logits are averaged that decide in the end."""
MOVED = 0.1
"""Share of the way to the target below which the gates have closed nothing; and share of the target below which they
have closed everything: the units to keep would be drawn from those that the gates do not tell apart."""
FAINT = 0.1
"""The least value of a gate on a unit that is kept, so that its weights can learn."""


@dataclass(frozen=True)
class Phases:
    """When gates begin to learn, when they have learnt, and how many steps there are.

    Attributes:
        batches: Steps of an epoch.
        epochs: Number of epochs.
        learn: The first step in which gates learn.
        harden: The first step in which they are fixed.
    """

    batches: int
    epochs: int
    learn: int
    harden: int

    @classmethod
    def of(cls, batches: int, epochs: int, warmup: float, harden: float) -> Phases:
        """Divide all steps by the shares of warm-up and hardening."""
        steps = batches * epochs
        return cls(batches, epochs, round(warmup * steps), steps - round(harden * steps))

    @property
    def learning(self) -> int:
        """Number of steps in which gates learn."""
        return max(1, self.harden - self.learn)

    def progress(self, step: int) -> float:
        """How much of the learning is done before a step, 0 to 1."""
        return min(1.0, max(0.0, (step - self.learn) / self.learning))


class Course(nn.Module):
    """A network whose training passes go through the course, one step each.

    Args:
        gated: The network.
        gate: Its gates.
        cost: Their expected cost.
        price: The penalty.
        target: Share of the dense cost that is to be left.
        phases: When what happens.
        choose: Chooses the final units from the averaged logits, (units,): 1 for those that are kept.

    Attributes:
        penalty: What the last pass adds to the loss.
        movement: Expected and thresholded width by epoch and group, (epochs, 2, groups).
    """

    average: Tensor
    begin: Tensor
    hard: Tensor
    movement: Tensor

    def __init__(
        self,
        gated: Gated,
        gate: Gate,
        cost: ExpectedCost,
        price: Lagrangian | Fixed,
        target: float,
        phases: Phases,
        choose: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.gated, self.gate, self.cost, self.price = gated, gate, cost, price
        self.target, self.phases, self.choose = target, phases, choose
        self.step = 0
        self._begin: float | None = None
        self.penalty = torch.zeros(())
        units = sum(gate.sizes)
        self.register_buffer("average", torch.zeros(units))
        self.register_buffer("begin", torch.ones(()))
        self.register_buffer("hard", torch.zeros(units))
        self.register_buffer("movement", torch.zeros(phases.epochs, 2, len(gate.sizes)), persistent=False)

    def forward(self, *inputs: Any) -> Any:
        """One pass of training; the penalty belongs to it."""
        step, self.step = self.step, self.step + 1
        if step == self.phases.harden:
            self._harden()
        if self.phases.learn <= step < self.phases.harden:
            gates = self._learn(inputs, self.phases.progress(step))
        else:
            logits = self._logits(inputs)
            still = 0 * logits  # parameters that rest still take part, as processes in step must agree on them
            self.penalty = self.price(still.sum(), 0.0)
            gates = still + (self.hard if step >= self.phases.harden else 1)
            self._record(step, self.gate.probability(logits) if step < self.phases.learn else self.hard > 0, gates)
        return self.gated.run(inputs, self.gate.scale(gates))

    def finish(self) -> nn.Module:
        """Fold the final gates into the network, and return it."""
        if self.step <= self.phases.harden:
            self._harden()
        with torch.no_grad():
            self.gated.fold(self.gate.scale(self.hard))
        return self.gated.model

    def get_extra_state(self) -> dict[str, Any]:
        """What has happened so far: no weights, so nothing that an average of weights is to touch."""
        return {"step": self.step, "movement": self.movement}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.step = state["step"]
        self.movement.copy_(state["movement"])

    def _learn(self, inputs: Sequence[Any], progress: float) -> Tensor:
        target = self._annealed(inputs, progress)
        self.gate.anneal(progress)
        if not self.gate.steered:
            self.gate.meet(target)
        logits = self._logits(inputs)
        probability = self.gate.probability(logits)
        self.penalty = self.price(self.cost(probability), target)
        with torch.no_grad():
            window = max(1.0, WINDOW * self.phases.learning)
            self.average.lerp_(logits, 1 / window if progress else 1.0)
        self._record(self.step - 1, probability, self.gate.value(logits))
        return self.gate.sample(logits)

    def _logits(self, inputs: Sequence[Any]) -> Tensor:
        """The logits, in full precision whatever that of the network is: they add up small steps."""
        with torch.autocast(self.average.device.type, enabled=False):
            return self.gate.logits(tuple(inputs))

    def _annealed(self, inputs: Sequence[Any], progress: float) -> float:
        """The target of a step, from what the gates cost when they begin to learn to what they are to cost."""
        if not progress:
            with torch.no_grad():
                self.begin.copy_(self.cost(self.gate.probability(self._logits(inputs))))
        if self._begin is None:
            self._begin = float(self.begin)  # read once: reading waits for the device
        return self.target + (self._begin - self.target) * self.gate.excess(min(1.0, progress / ANNEALED))

    def _record(self, step: int, probability: Tensor, gates: Tensor) -> None:
        with torch.no_grad():
            widths = (self.cost.widths(values.to(self.average)) for values in (probability, gates > 0))
            self.movement[step // self.phases.batches] = torch.stack(list(widths))

    def _harden(self) -> None:
        """Fix the gates: those of the chosen units at their values, all others at 0."""
        with torch.no_grad():
            value = self.gate.value(self.average)
            self._check(value)
            self.hard.copy_(value.clamp_min(FAINT) * self.choose(self.average))

    def _check(self, value: Tensor) -> None:
        """Refuse gates that all closed, or that neither closed nor became likely to."""
        units, closed = value.numel(), int((value == 0).sum())
        shares = [float(self.cost(p)) for p in ((value > 0).to(value), self.gate.probability(self.average))]
        nothing = min(shares) > 1 - (1 - self.target) * MOVED
        everything = closed == units or max(shares) < self.target * MOVED
        if not everything and not nothing:
            return
        if isinstance(self.price, Fixed):
            cure = f"{'raise' if nothing else 'lower'} `lambda`, or leave it out"
        else:
            cure = "raise `epochs`, start with `init: imitation`, or choose another gate"
        left = min(shares) if nothing else max(shares)
        learnt = f"the gates close {closed} of {units} units and leave {left:.0%} of the {self.cost.cost.name}"
        raise InputError(learnt, where="compress.options", cure=cure)
