"""The budget of learned gates: their expected cost, and a penalty that drives it to the target."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressor.budget.costs.base import CostModel
from compressor.structure.groups import Groups

STIFFNESS = 1.0
"""How strongly a difference from the target is penalised, per step of learning: the less time, the stiffer."""
MEMORY = 20.0
"""Steps over which the multiplier takes over what a lasting difference costs."""


class ExpectedCost(nn.Module):
    """What the network will cost, as a function of the probabilities that the units are open.

    Args:
        groups: The channel groups.
        cost: A cost model.
    """

    owner: Tensor

    def __init__(self, groups: Groups, cost: CostModel) -> None:
        super().__init__()
        self.cost, self.dense = cost, cost.dense
        self.sizes = {group.name: group.size for group in groups}
        sizes = torch.tensor(list(self.sizes.values()))
        self.register_buffer("owner", torch.arange(len(sizes)).repeat_interleave(sizes), persistent=False)

    def widths(self, gates: Tensor) -> Tensor:
        """Sum what is given per unit, (units,), over every group, (groups,)."""
        return gates.new_zeros(len(self.sizes)).index_add(0, self.owner, gates)

    def forward(self, probability: Tensor) -> Tensor:
        """Expected share of the dense cost, a scalar, for independent units that are open with `probability`."""
        means, variances = self.widths(probability), self.widths(probability * (1 - probability))
        widths, spreads = (dict(zip(self.sizes, values.unbind(), strict=True)) for values in (means, variances))
        return self.cost.expected(widths, spreads, self.sizes) / self.dense


class Lagrangian(nn.Module):
    """Augmented Lagrangian of `share == target`; the multiplier is a parameter that is to *ascend*.

    Args:
        steps: Steps in which the gates learn.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.stiffness = STIFFNESS * max(steps, 100)
        self.multiplier = nn.Parameter(torch.zeros(()))

    @property
    def rate(self) -> float:
        """The rate at which the multiplier ascends."""
        return self.stiffness / MEMORY

    def forward(self, share: Tensor, target: float) -> Tensor:
        excess = share - target
        return self.multiplier * excess + self.stiffness / 2 * excess.square()


class Fixed(nn.Module):
    """A fixed price of the cost; the target only decides where the ranking is cut."""

    def __init__(self, price: float) -> None:
        super().__init__()
        self.price = price

    def forward(self, share: Tensor, target: float) -> Tensor:
        return self.price * share
