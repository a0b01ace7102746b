"""Block forward greedy: add the unit that lets the consumer imitate its dense output best, re-solved at every step.

The objective is the error of the re-solved consumer itself (column subset selection with refit). A partial Cholesky
factorisation of the inputs' covariance is extended by one block per step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-4


@dataclass
class Covariance:
    """What one consumer (of one convolution group) reads, for the columns of the units of one group.

    Attributes:
        matrix: Covariance of the inputs: the i-th of `units` owns the rows i * area .. (i + 1) * area - 1.
        cross: Covariance of inputs and (scaled) outputs, (columns, outputs).
        energy: Mean squared output: the error with nothing selected.
        area: Columns of one unit.
        units: The units that have columns here, in ascending order.
    """

    matrix: Tensor
    cross: Tensor
    energy: float
    area: int
    units: Tensor


class BlockGreedy:
    """Greedy state of one consumer."""

    def __init__(self, covariance: Covariance, ridge: float = RIDGE) -> None:
        self.area, self.units = covariance.area, covariance.units
        self.matrix, self.cross = covariance.matrix, covariance.cross.clone()
        count, area = len(self.units), self.area
        mean = float(self.matrix.diagonal().mean().clamp_min(1e-30))
        blocks = self.matrix.unflatten(0, (count, area)).unflatten(2, (count, area))
        own = torch.arange(count)
        self.ridge = ridge * mean * torch.eye(area, dtype=self.matrix.dtype)
        self.diagonal = blocks[own, :, own, :].clone() + self.ridge
        self.factor = self.matrix.new_zeros(count * area, count * area)
        self.done = 0
        self.error = covariance.energy
        self.place = {int(unit): i for i, unit in enumerate(self.units)}

    def gains(self, size: int) -> Tensor:
        """By how much the error falls when each unit is added, (size,)."""
        chol = torch.linalg.cholesky(self.diagonal)
        solved = torch.linalg.solve_triangular(chol, self.cross.unflatten(0, (-1, self.area)), upper=False)
        gains = self.matrix.new_zeros(size)
        gains[self.units] = solved.square().sum((1, 2))
        return gains

    def add(self, unit: int) -> None:
        """Select a unit: project its columns out of everything else."""
        if unit not in self.place:
            return
        i, area = self.place[unit], self.area
        rows = slice(i * area, (i + 1) * area)
        chol = torch.linalg.cholesky(self.diagonal[i])
        column = self.matrix[:, rows].clone()
        column[rows] += self.ridge
        if self.done:
            column -= self.factor[:, : self.done] @ self.factor[rows, : self.done].t()
        step = torch.linalg.solve_triangular(chol, column.t(), upper=False).t()
        explained = torch.linalg.solve_triangular(chol, self.cross[rows], upper=False)
        self.error -= float(explained.square().sum())
        self.cross -= step @ explained
        blocks = step.unflatten(0, (-1, area))
        self.diagonal -= blocks @ blocks.transpose(1, 2)
        self.diagonal[i] = torch.eye(area, dtype=self.matrix.dtype)
        self.cross[rows] = 0
        self.factor[:, self.done : self.done + area] = step
        self.done += area
