"""Block forward greedy: add the unit that lets the consumer imitate its dense output best, re-solved at every step.

The objective is the error of the re-solved consumer itself (column subset selection with refit). A partial Cholesky
factorisation of the inputs' covariance is extended by one block per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-4
STEPS = 64
"""Rounds in which a large group is ordered."""
LARGE = 1_000
"""A consumer with more columns is factorised in single precision: the ridge stays far above its rounding."""


@dataclass
class Covariance:
    """What one consumer (of one convolution group) reads, for the columns of the units of one group.

    Attributes:
        matrix: Covariance of the inputs: the i-th of `units` owns the rows i * area .. (i + 1) * area - 1.
        cross: Covariance of inputs and (scaled) outputs, (columns, outputs).
        energy: Mean squared output: the error with nothing selected.
        area: Columns of one unit.
        units: The units that have columns here.
        ridge: What is added to the diagonal; by default a small share of its mean.
    """

    matrix: Tensor
    cross: Tensor
    energy: float
    area: int
    units: Tensor
    ridge: float | None = None


class BlockGreedy:
    """Greedy state of one consumer."""

    def __init__(self, covariance: Covariance) -> None:
        self.area, self.units = covariance.area, covariance.units
        precision = torch.float32 if len(covariance.matrix) > LARGE else covariance.matrix.dtype
        self.matrix, self.cross = covariance.matrix.to(precision), covariance.cross.to(precision, copy=True)
        count, area = len(self.units), self.area
        ridge = covariance.ridge
        if ridge is None:
            ridge = RIDGE * float(self.matrix.diagonal().mean().clamp_min(1e-30))
        blocks = self.matrix.unflatten(0, (count, area)).unflatten(2, (count, area))
        own = torch.arange(count)
        self.ridge = ridge * torch.eye(area, dtype=self.matrix.dtype)
        self.diagonal = blocks[own, :, own, :].clone() + self.ridge
        self.factor = self.matrix.new_zeros(count * area, count * area)
        self.done = 0
        self.error = covariance.energy
        self.place = {int(unit): i for i, unit in enumerate(self.units)}

    def gains(self, size: int) -> Tensor:
        """By how much the error falls when each unit is added, (size,)."""
        gains = self.matrix.new_zeros(size)
        if self.area == 1:
            gains[self.units] = self.cross.square().sum(1) / self.diagonal[:, 0, 0].clamp_min(float(self.ridge))
            return gains
        chol = _factor(self.diagonal, self.ridge)
        solved = torch.linalg.solve_triangular(chol, self.cross.unflatten(0, (-1, self.area)), upper=False)
        gains[self.units] = solved.square().sum((1, 2))
        return gains

    def among(self, units: Sequence[int]) -> Covariance:
        """What is left to explain, for some of the units, which are numbered in the order given."""
        present = [n for n, unit in enumerate(units) if unit in self.place]
        rows = self._rows([units[n] for n in present])
        taken = self.factor[rows, : self.done]
        matrix = self.matrix[rows][:, rows] - taken @ taken.t()
        numbers = torch.tensor(present, dtype=torch.long)
        return Covariance(matrix, self.cross[rows], self.error, self.area, numbers, float(self.ridge[0, 0]))

    def add(self, units: Sequence[int]) -> None:
        """Select units: project their columns out of everything else."""
        present = [unit for unit in units if unit in self.place]
        if not present:
            return
        rows = self._rows(present)
        columns = self.matrix[:, rows] - self.factor[:, : self.done] @ self.factor[rows, : self.done].t()
        columns[rows, torch.arange(len(rows))] += self.ridge[0, 0]
        chol = _factor(columns[rows].unsqueeze(0), self.ridge[0, 0] * torch.eye(len(rows), dtype=columns.dtype))[0]
        step = torch.linalg.solve_triangular(chol, columns.t(), upper=False).t()
        explained = torch.linalg.solve_triangular(chol, self.cross[rows], upper=False)
        self.error -= float(explained.square().sum())
        self.cross -= step @ explained
        blocks = step.unflatten(0, (-1, self.area))
        self.diagonal -= blocks @ blocks.transpose(1, 2)
        self.diagonal[[self.place[unit] for unit in present]] = torch.eye(self.area, dtype=columns.dtype)
        self.cross[rows] = 0
        self.factor[:, self.done : self.done + len(rows)] = step
        self.done += len(rows)

    def _rows(self, units: Sequence[int]) -> Tensor:
        first = torch.tensor([self.place[unit] * self.area for unit in units], dtype=torch.long)
        return (first[:, None] + torch.arange(self.area)).flatten()


def select(parts: Sequence[Covariance], size: int, order: Sequence[int] | None = None) -> tuple[list[int], list[float]]:
    """Order units by forward greedy.

    A large group is taken in `STEPS` rounds: the units with the largest gains compete among themselves for the places
    of the round, by the exact algorithm.

    Args:
        parts: The consumers of the group.
        size: Number of units.
        order: An order that is only to be priced.

    Returns:
        The order, and the error with the first 0, 1, … units of it.
    """
    states = [BlockGreedy(part) for part in parts]
    chosen: list[int] = []
    errors = [sum(state.error for state in states)]
    while len(chosen) < size:
        places = 1 if order is not None else min(max(1, size // STEPS), size - len(chosen))
        units = [order[len(chosen)]] if order is not None else _best(states, chosen, size, 2 * places)
        if places > 1:
            units, between = _contest(states, units, places)
            errors += between[:-1]
        else:
            units = units[:1]
        for state in states:
            state.add(units)
        chosen += units
        errors.append(sum(state.error for state in states))
    falling = [min(errors[: n + 1]) for n in range(len(errors))]
    return chosen, [max(0.0, error - falling[-1]) for error in falling]


def _best(states: Sequence[BlockGreedy], chosen: Sequence[int], size: int, count: int) -> list[int]:
    gains = torch.stack([state.gains(size) for state in states]).sum(0)
    gains[chosen] = -1.0
    best: list[int] = gains.argsort(descending=True, stable=True)[: min(count, size - len(chosen))].tolist()
    return best


def _contest(states: Sequence[BlockGreedy], units: Sequence[int], places: int) -> tuple[list[int], list[float]]:
    """The units that win the places, in order, and the error after each."""
    rivals = [BlockGreedy(state.among(units)) for state in states]
    won: list[int] = []
    errors = []
    for _ in range(places):
        unit = _best(rivals, won, len(units), 1)[0]
        for rival in rivals:
            rival.add([unit])
        won.append(unit)
        errors.append(sum(rival.error for rival in rivals))
    return [units[n] for n in won], errors


def _factor(blocks: Tensor, ridge: Tensor) -> Tensor:
    """Cholesky factors of diagonal blocks; what projection has used up to below rounding counts as the ridge alone."""
    if blocks.shape[-1] == 1:
        return blocks.clamp_min(ridge[0, 0]).sqrt()
    factors, failed = torch.linalg.cholesky_ex(blocks)
    while failed.any():
        ridge = 10 * ridge
        factors, failed = torch.linalg.cholesky_ex(blocks + ridge)
    return factors
