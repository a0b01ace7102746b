"""Backward elimination: drop the unit without which the consumers, weights re-solved, lose least."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.selection.base import Calibration, Ranking
from compressor.selection.consumers import covariances
from compressor.selection.fit import Covariance
from compressor.selection.moment_method import Imitating
from compressor.selection.moments import Moments
from compressor.structure.groups import ChannelGroup
from compressor.support.linalg import factor


class GroupOBS(Imitating):
    """From the full group, drop the unit that costs least when the consumers make up for it (optimal brain surgeon).

    The inverse of the covariance of the consumers' inputs gives the cost of every unit and the compensation in closed
    form. The curves are then scaled to the rise of the KL divergence to the dense network.
    """

    name = "group_obs"
    summary = "backward elimination with exact compensation of the consumers; label-free"
    paper = "after Frantar and Alistarh, Optimal Brain Compression, NeurIPS 2022, for groups"

    def rank_group(self, calibration: Calibration, group: ChannelGroup, moments: dict[str, Moments]) -> Ranking:
        parts = covariances(calibration.groups, group, moments)
        states = [_Elimination(part) for part in parts]
        left = set(range(group.size))
        dropped: list[int] = []
        errors = [0.0]
        while left:
            costs = torch.stack([state.costs(group.size) for state in states]).sum(0)
            unit = min(_droppable(group, left), key=lambda u: float(costs[u]))
            errors.append(errors[-1] + max(0.0, float(costs[unit])))
            for state in states:
                state.drop(unit)
            left.remove(unit)
            dropped.append(unit)
        return Ranking(group.balanced(dropped[::-1]), tuple(errors[::-1]))


def _droppable(group: ChannelGroup, left: set[int]) -> list[int]:
    """The units that may go next: of blocks only such as have most units left."""
    if not group.blocks:
        return sorted(left)
    most = max(len(left.intersection(block)) for block in group.blocks)
    full = (left.intersection(block) for block in group.blocks)
    return sorted(unit for units in full if len(units) == most for unit in units)


class _Elimination:
    """State of one consumer: its weights on what is left, and the inverse of the covariance of that."""

    def __init__(self, covariance: Covariance) -> None:
        self.area = covariance.area
        self.place = {int(unit): i for i, unit in enumerate(covariance.units)}
        self.units = covariance.units
        matrix = covariance.matrix.double()
        chol = factor(matrix, covariance.ridge * float(matrix.diagonal().mean().clamp_min(1e-30)))
        self.inverse = torch.cholesky_inverse(chol)
        self.weight = torch.cholesky_solve(covariance.cross.double(), chol)
        self.gone = torch.zeros(len(self.units), dtype=torch.bool)

    def costs(self, size: int) -> Tensor:
        """By how much the error rises when each unit is dropped, (size,); 0 for units that are not read here."""
        count = len(self.units)
        blocks = self.inverse.unflatten(0, (count, self.area)).unflatten(2, (count, self.area))
        own = torch.arange(count)
        diagonal = blocks[own, :, own, :].clone()
        diagonal[self.gone] = torch.eye(self.area, dtype=diagonal.dtype)
        weight = self.weight.unflatten(0, (count, self.area))
        rises = (weight * torch.cholesky_solve(weight, torch.linalg.cholesky(diagonal))).sum((1, 2))
        costs = self.weight.new_zeros(size)
        costs[self.units] = rises
        return costs

    def drop(self, unit: int) -> None:
        """Take a unit out and let the others make up for it."""
        if unit not in self.place:
            return
        i = self.place[unit]
        rows = slice(i * self.area, (i + 1) * self.area)
        step = torch.linalg.solve(self.inverse[rows, rows], self.inverse[rows])
        self.weight -= step.t() @ self.weight[rows]
        self.inverse -= self.inverse[:, rows] @ step
        self.weight[rows] = 0
        self.inverse[rows] = 0
        self.inverse[:, rows] = 0
        self.gone[i] = True
