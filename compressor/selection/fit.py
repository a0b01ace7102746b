"""Block forward greedy: add the unit that lets the consumer imitate its dense output best, re-solved at every step.

The objective is the error of the re-solved consumer itself (column subset selection with refit). A partial Cholesky
factorisation of the inputs' covariance is extended by one block per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from compressor.support.linalg import factor

LARGE, ROUNDS = 128, 32
"""Units from which on a group is ordered in rounds, and how many of these."""
FORGOTTEN = 0.25
"""Share of the units that are in when their columns are dropped."""


@dataclass
class Covariance:
    """What one consumer (of one convolution group) reads, for the columns of the units of one group.

    Attributes:
        matrix: Covariance of the inputs: the i-th of `units` owns the rows i * area .. (i + 1) * area - 1.
        cross: Covariance of inputs and (scaled) outputs, (columns, outputs).
        energy: Mean squared output: the error with nothing selected.
        area: Columns of one unit.
        units: The units that have columns here.
        ridge: Share of the mean of the diagonal that makes solving safe.
    """

    matrix: Tensor
    cross: Tensor
    energy: float
    area: int
    units: Tensor
    ridge: float


class Nested:
    """The consumer solved for all widths at once: its columns in the order of their units, and one factorisation.

    The factor of the first columns is the first block of the factor of all of them.

    Args:
        covariance: The consumer.
        order: The units, the first ones to be kept first; of those that are never kept none need be given.
    """

    def __init__(self, covariance: Covariance, order: Sequence[int]) -> None:
        place = {int(unit): i for i, unit in enumerate(covariance.units)}
        here = [place[unit] for unit in order if unit in place]
        self._ends = [0]
        for unit in order:
            self._ends.append(self._ends[-1] + (unit in place) * covariance.area)
        self.columns = _columns(here, covariance.area)
        matrix = covariance.matrix[self.columns][:, self.columns]
        scale = float(covariance.matrix.diagonal().mean().clamp_min(1e-30))
        self._factor = factor(matrix, covariance.ridge * scale)
        self._explained = torch.linalg.solve_triangular(self._factor, covariance.cross[self.columns], upper=False)
        self._energy = covariance.energy

    def weight(self, width: int) -> Tensor:
        """The weight on the columns of the first units, (columns, outputs)."""
        end = self._ends[width]
        return torch.linalg.solve_triangular(self._factor[:end, :end].t(), self._explained[:end], upper=True)

    def errors(self) -> list[float]:
        """The error with the first 0, 1, … units."""
        explained = self._explained.square().sum(1, dtype=torch.float64).cumsum(0)
        known = [0.0, *explained.tolist()]
        return [self._energy - known[end] for end in self._ends]


class BlockGreedy:
    """Greedy state of one consumer. Columns of units that are in are forgotten from time to time."""

    def __init__(self, covariance: Covariance) -> None:
        self.area, self.units = covariance.area, covariance.units
        self.matrix, self.cross = covariance.matrix, covariance.cross.clone()
        count, area = len(self.units), self.area
        self.ridge = covariance.ridge * float(self.matrix.diagonal().mean().clamp_min(1e-30))
        blocks = self.matrix.unflatten(0, (count, area)).unflatten(2, (count, area))
        own = torch.arange(count)
        self.diagonal = blocks[own, :, own, :].clone() + self.ridge * torch.eye(area, dtype=self.matrix.dtype)
        self.factor = self.matrix.new_empty(count * area, count * area)
        self.done = 0
        self.error = covariance.energy
        self.place = {int(unit): i for i, unit in enumerate(self.units)}
        self.chosen: list[int] = []

    def gains(self, size: int) -> Tensor:
        """By how much the error falls when each unit is added, (size,)."""
        gains = torch.zeros(size, dtype=self.matrix.dtype)
        if self.area == 1:
            gains[self.units] = self.cross.square().sum(1) / self.diagonal[:, 0, 0].clamp_min(self.ridge)
            return gains
        chol = _factor(self.diagonal, self.ridge)
        solved = torch.linalg.solve_triangular(chol, self.cross.unflatten(0, (-1, self.area)), upper=False)
        gains[self.units] = solved.square().sum((1, 2))
        return gains

    def left(self, units: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What is left to explain with some units: their columns' covariance, and products of covariances with outputs.

        Both are divided by the ridge, which the first includes.
        """
        rows = _columns([self.place[unit] for unit in units], self.area)
        taken, cross = self.factor[: self.done, rows], self.cross[rows]
        matrix = (self.matrix[rows[:, None], rows] - taken.t() @ taken).double() / self.ridge
        matrix.diagonal().add_(1.0)
        return matrix, (cross @ cross.t()).double() / self.ridge

    def add(self, units: Sequence[int]) -> None:
        """Select units: project their columns out of everything else."""
        places = [self.place[unit] for unit in units if unit in self.place]
        if not places:
            return
        rows = _columns(places, self.area)
        taken = self.factor[: self.done]
        columns = torch.addmm(self.matrix[rows], taken[:, rows].t(), taken, alpha=-1)
        columns[torch.arange(len(rows)), rows] += self.ridge
        chol = _factor(columns[:, rows].unsqueeze(0), self.ridge)[0]
        step = self.factor[self.done : self.done + len(rows)]
        step.copy_(torch.linalg.solve_triangular(chol, columns, upper=False))
        explained = torch.linalg.solve_triangular(chol, self.cross[rows], upper=False)
        self.error -= float(explained.square().sum())
        self.cross.addmm_(step.t(), explained, alpha=-1)
        self.done += len(rows)
        if self.area == 1:
            self.diagonal[:, 0, 0] -= step.square().sum(0)
        else:
            blocks = step.unflatten(1, (-1, self.area)).permute(1, 2, 0)
            self.diagonal -= blocks @ blocks.transpose(1, 2)
        self.diagonal[places] = torch.eye(self.area, dtype=columns.dtype)
        self.cross[rows] = 0
        self.chosen += places
        if len(self.chosen) > FORGOTTEN * len(self.units):
            self._forget()

    def _forget(self) -> None:
        """Drop the columns of the units that are in: nothing more is read of them."""
        left = torch.ones(len(self.units), dtype=torch.bool)
        left[self.chosen] = False
        rows = left.repeat_interleave(self.area).nonzero()[:, 0]
        self.matrix, self.cross = self.matrix[rows[:, None], rows], self.cross[rows]
        taken, self.factor = self.factor, self.factor.new_empty(self.done + len(rows), len(rows))
        self.factor[: self.done] = taken[: self.done, rows]
        self.units, self.diagonal, self.chosen = self.units[left], self.diagonal[left], []
        self.place = {int(unit): i for i, unit in enumerate(self.units)}


class Contest:
    """The exact algorithm among a few units, for consumers that all read them in the same way.

    Of the outputs only products of what is left are needed, so that no matrix is larger than the units' columns.

    Args:
        states: The consumers.
        units: The units.
        present: Places in `units` of those that the consumers read.
    """

    def __init__(self, states: Sequence[BlockGreedy], units: Sequence[int], present: Sequence[int]) -> None:
        parts = [state.left([units[n] for n in present]) for state in states]
        self.present, self.area = present, states[0].area
        self.matrix, self.products = (torch.stack(column) for column in zip(*parts, strict=True))
        self.error = sum(state.error for state in states)

    def gains(self, size: int) -> Tensor:
        """By how much the errors fall when each unit is added, (size,)."""
        gains = torch.zeros(size, dtype=self.matrix.dtype)
        blocks, products = (self._diagonal(m) for m in (self.matrix, self.products))
        gains[self.present] = _explained(blocks, products).sum(0)
        return gains

    def add(self, number: int) -> None:
        """Select a unit."""
        if number not in self.present:
            return
        place = self.present.index(number)
        rows = slice(place * self.area, (place + 1) * self.area)
        chol = _factor(self.matrix[:, rows, rows], 1.0)
        step = torch.linalg.solve_triangular(chol, self.matrix[:, rows], upper=False)
        shared = torch.linalg.solve_triangular(chol, self.products[:, rows], upper=False)
        gain = torch.linalg.solve_triangular(chol, shared[:, :, rows].transpose(1, 2), upper=False)
        self.error -= float(gain.diagonal(dim1=1, dim2=2).sum())
        twice = step.transpose(1, 2) @ (shared - gain @ step / 2)
        self.products -= twice + twice.transpose(1, 2)
        self.matrix -= step.transpose(1, 2) @ step
        self.matrix[:, rows, rows] = torch.eye(self.area, dtype=step.dtype)

    def _diagonal(self, matrix: Tensor) -> Tensor:
        """Blocks on the diagonal, (consumers, units, area, area)."""
        blocks = matrix.unflatten(1, (-1, self.area)).unflatten(3, (-1, self.area))
        return blocks.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


def select(parts: Sequence[Covariance], size: int) -> tuple[list[int], list[float]]:
    """Order units by forward greedy.

    A large group is taken in `ROUNDS` rounds: the units with the largest gains compete among themselves for the places
    of the round, by the exact algorithm.

    Args:
        parts: The consumers of the group.
        size: Number of units.

    Returns:
        The order, and the error with the first 0, 1, … units of it.
    """
    states = [BlockGreedy(part) for part in parts]
    chosen: list[int] = []
    errors = [sum(state.error for state in states)]
    while len(chosen) < size:
        places = min(size // ROUNDS if size >= LARGE else 1, size - len(chosen))
        units = _best(states, chosen, size, 2 * places)
        if places > 1:
            units, between = _contest(states, units, places)
            errors += between[:-1]
        for state in states:
            state.add(units[:places])
        chosen += units[:places]
        errors.append(sum(state.error for state in states))
    return chosen, _falling(errors)


def errors_of(parts: Sequence[Covariance], order: Sequence[int]) -> list[float]:
    """The error with the first 0, 1, … units of a given order."""
    each = [Nested(part, order).errors() for part in parts]
    return _falling([sum(errors) for errors in zip(*each, strict=True)])


def _falling(errors: Sequence[float]) -> list[float]:
    lowest = list(accumulate(errors, min))
    return [max(0.0, error - lowest[-1]) for error in lowest]


def _best(states: Sequence[BlockGreedy | Contest], chosen: Sequence[int], size: int, count: int) -> list[int]:
    gains = torch.stack([state.gains(size).double() for state in states]).sum(0)
    gains[chosen] = -1.0
    best: list[int] = gains.argsort(descending=True, stable=True)[: min(count, size - len(chosen))].tolist()
    return best


def _contest(states: Sequence[BlockGreedy], units: Sequence[int], places: int) -> tuple[list[int], list[float]]:
    """The units that win the places, in order, and the error after each."""
    alike: dict[tuple[int, tuple[int, ...]], list[BlockGreedy]] = {}
    for state in states:
        present = tuple(n for n, unit in enumerate(units) if unit in state.place)
        alike.setdefault((state.area, present), []).append(state)
    rivals = [Contest(members, units, list(present)) for (_, present), members in alike.items()]
    won: list[int] = []
    errors = []
    for _ in range(places):
        number = _best(rivals, won, len(units), 1)[0]
        for rival in rivals:
            rival.add(number)
        won.append(number)
        errors.append(sum(rival.error for rival in rivals))
    return [units[n] for n in won], errors


def _columns(places: Sequence[int], area: int) -> Tensor:
    """The columns of units that lie at these places."""
    return (torch.tensor(places, dtype=torch.long)[:, None] * area + torch.arange(area)).flatten()


def _explained(blocks: Tensor, products: Tensor) -> Tensor:
    """Trace of blocks^-1 products, for stacks of either, (..., area, area)."""
    if blocks.shape[-1] == 1:
        return (products / blocks.clamp_min(1.0))[..., 0, 0]
    solved = torch.cholesky_solve(products, _factor(blocks, 1.0))
    return solved.diagonal(dim1=-2, dim2=-1).sum(-1)


def _factor(blocks: Tensor, ridge: float) -> Tensor:
    """Cholesky factors of diagonal blocks; what projection has used up to below rounding counts as the ridge alone."""
    if blocks.shape[-1] == 1:
        return blocks.clamp_min(ridge).sqrt()
    factors, failed = torch.linalg.cholesky_ex(blocks)
    own = torch.eye(blocks.shape[-1], dtype=blocks.dtype)
    while failed.any():
        ridge = 10 * ridge
        factors, failed = torch.linalg.cholesky_ex(blocks + ridge * own)
    return factors
