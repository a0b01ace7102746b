"""Greedy imitation of what the consumers deliver, by mixing units, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.selection.base import Calibration, Ranking
from compressor.selection.consumers import is_centred, owned
from compressor.selection.contributions import contributions
from compressor.selection.moment_method import Imitating
from compressor.selection.moments import Moments
from compressor.structure.groups import ChannelGroup, Groups

POLISHING = 50
"""Most changes of the weights of the units that are in, for every unit that comes in."""
TOLERANCE = 1e-4
DEAD = 1e-12


class ImitateSimplex(Imitating):
    """Mix units, with weights that sum to the number of units, so that the outputs of the consumers change least.

    Every step moves the mixture towards one unit, by a line search; before the next unit comes in, the weights of those
    that are in are polished in the same way. One pass over the images gives all that is needed. The curves are then
    scaled to the rise of the KL divergence to the dense network, with the consumers re-solved.
    """

    name = "imitate_simplex"
    summary = "mixes units so that the outputs of their consumers change least, in closed form; label-free"
    paper = "Ye et al., Greedy Optimization Provably Wins the Lottery, NeurIPS 2020 (arXiv 2010.15969), local imitation"

    def rank_group(self, calibration: Calibration, group: ChannelGroup, moments: dict[str, Moments]) -> Ranking:
        return _ranking(group, gram(calibration.groups, group, moments))


def gram(groups: Groups, group: ChannelGroup, moments: dict[str, Moments]) -> Tensor:
    """Covariances of what the units contribute to the outputs of their consumers, (units, units)."""
    total = torch.zeros(group.size, group.size, dtype=torch.float64)
    for cut in group.slices:
        if cut.role != "consumer" or cut.tensor not in moments:
            continue
        own = moments[cut.tensor]
        center = is_centred(groups, own)
        mine = torch.zeros_like(total)
        for g, members in owned(own, cut).items():
            units = torch.tensor(list(members))
            mine[units[:, None], units] += contributions(own, g, members, center, own.scale[g])
        total += mine / mine.sum().clamp_min(1e-30)
    return total


def _ranking(group: ChannelGroup, covariance: Tensor) -> Ranking:
    """Order and errors; dead units, which would serve to make the others weigh less, come last."""
    live = covariance.diagonal() > (-1 if group.blocks else DEAD * covariance.diagonal().max())
    units = live.nonzero()[:, 0]
    mixture = _Mixture(covariance[units][:, units])
    order: list[int] = []
    errors = [mixture.empty]
    while len(order) < len(units):
        place = mixture.best(torch.tensor(_enterable(group, order, units.tolist())))
        mixture.move(place)
        order.append(place)
        mixture.polish(torch.tensor(order))
        errors.append(min(errors[-1], mixture.error))
    errors += errors[-1:] * (group.size - len(units))
    dead = (~live).nonzero()[:, 0].tolist()
    return Ranking(group.balanced([*units[order].tolist(), *dead]), tuple(e - errors[-1] for e in errors))


def _enterable(group: ChannelGroup, order: list[int], units: list[int]) -> list[int]:
    """Places of the units that may come in next: of blocks only such as keep them even."""
    left = [place for place in range(len(units)) if place not in order]
    if not group.blocks:
        return left
    numbers = [len(set(block).intersection(left)) for block in group.blocks]
    behind = {u for block, number in zip(group.blocks, numbers, strict=True) if number == max(numbers) for u in block}
    return [place for place in left if place in behind]


class _Mixture:
    """Weights of units on a simplex, and how far their mixture is from what all units deliver together."""

    def __init__(self, covariance: Tensor) -> None:
        size = len(covariance)
        self.products = size**2 * covariance
        self.targets = size * covariance.sum(1)
        self.empty = float(covariance.sum())
        self.weights = covariance.new_zeros(size)
        self.with_all = covariance.new_zeros(size)

    @property
    def square(self) -> float:
        return float(self.weights @ self.with_all)

    @property
    def aim(self) -> float:
        return float(self.weights @ self.targets)

    @property
    def error(self) -> float:
        """Squared distance to the target."""
        return max(0.0, self.square - 2 * self.aim + self.empty)

    def best(self, units: Tensor) -> int:
        """The unit towards which a move lowers the error most; if none does, the one that would spoil it least."""
        steps, slopes, lengths = self._steps(units)
        changes = 2 * steps * slopes + steps.square() * lengths
        still = changes >= 0
        return int(units[torch.where(still, slopes.clamp_min(0), changes).argmin()])

    def polish(self, units: Tensor) -> None:
        """Move towards and away from units that are in, until that changes little."""
        for _ in range(POLISHING):
            before = self.error
            steps, slopes, lengths = self._steps(units)
            self.move(int(units[(2 * steps * slopes + steps.square() * lengths).argmin()]))
            if self.error >= before - TOLERANCE * max(before, TOLERANCE * self.empty):
                return

    def move(self, unit: int) -> None:
        """Move towards a unit as far as is best; the first one gets all the weight."""
        step = 1.0 if not self.weights.any() else float(self._steps(torch.tensor([unit]))[0])
        self.weights *= 1 - step
        self.weights[unit] = (self.weights[unit] + step).clamp_min(0)
        self.with_all = (1 - step) * self.with_all + step * self.products[unit]

    def _steps(self, units: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Best step towards each unit, slope of half the error there, and squared length of the way."""
        slopes = self.with_all[units] - self.square - self.targets[units] + self.aim
        lengths = self.products[units, units] - 2 * self.with_all[units] + self.square
        own = self.weights[units]
        lowest = torch.where(own < 1, -own / (1 - own).clamp_min(1e-12), torch.zeros_like(own))
        steps = torch.where(lengths > 1e-12 * self.empty, -slopes / lengths.clamp_min(1e-30), torch.zeros_like(slopes))
        if not self.weights.any():
            steps = torch.ones_like(steps)
        return torch.maximum(steps, lowest).clamp_max(1.0), slopes, lengths
