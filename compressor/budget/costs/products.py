"""Sums over tensors of products over their cut axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.budget.costs.axes import Axis
from compressor.budget.costs.base import Array, CostModel, Widths


class Products(CostModel):
    """`sum over tensors of cost(tensor) * product over axes of the share of the axis that is kept`.

    A share is counted in coordinates: those that no group owns, plus those of the units kept in every group that owns a
    part of the axis (a concatenation has several). Where units own unequally many, each counts as the mean one.

    Args:
        costs: Of the dense tensors, by their names.
        axes: The axes that groups cut, by the tensor's name and the axis' number.
        sizes: Units of every group, by its name.
    """

    name = "products"

    def __init__(
        self, costs: Mapping[str, float], axes: Mapping[tuple[str, int], Axis], sizes: Mapping[str, int]
    ) -> None:
        rows = {name: row for row, name in enumerate(costs)}
        cut = {(rows[name], number): axis for (name, number), axis in axes.items() if name in rows}
        shape = len(rows), 1 + max((number for _, number in cut), default=0)

        self._index = {name: g for g, name in enumerate(sizes)}
        self._sizes = np.array(list(sizes.values()), dtype=float)
        self._owned = np.zeros((*shape, len(sizes)))  # coordinates that one unit of each group owns
        self._free = np.ones(shape)
        for at, axis in cut.items():
            self._free[at] = axis.free
            for name, own in axis.owned:
                self._owned[at][self._index[name]] = own
        length = self._free + self._owned @ self._sizes
        self._scale = np.array(list(costs.values()), dtype=float) / length.prod(axis=1)
        shared = np.einsum("tag,tbg->ab", self._owned, self._owned)
        self._pairs = [pair for pair in combinations(range(shape[1]), 2) if shared[pair]]  # axes that share a group
        self._touched = [np.flatnonzero(self._owned[:, :, g].any(axis=1)) for g in range(len(sizes))]

    def total(self, widths: Widths) -> float:
        return float(self.each(widths).sum())

    def each(self, widths: Widths) -> Array:
        """The cost of every tensor, shape (tensors,)."""
        kept = self._free + self._owned @ self._vector(widths)
        return np.asarray(self._scale * kept.prod(axis=1))

    def changes(self, widths: Widths, group: str, candidates: Sequence[int] | NDArray[np.int64]) -> Array:
        column, vector = self._index[group], self._vector(widths)
        rows = self._touched[column]
        kept, step = self._free[rows] + self._owned[rows] @ vector, self._owned[rows, :, column]
        terms: list[Array] = [self._scale[rows]]  # of a polynomial in the difference of widths, lowest power first
        for axis in range(kept.shape[1]):
            same, raised = [t * kept[:, axis] for t in terms], [t * step[:, axis] for t in terms]
            terms = [a + b for a, b in zip([*same, np.zeros(len(rows))], [np.zeros(len(rows)), *raised], strict=True)]
        coefficients = np.array([0.0, *(t.sum() for t in terms[1:])])
        difference = np.asarray(candidates, dtype=float) - vector[column]
        return np.polynomial.polynomial.polyval(difference, coefficients)

    def expected(
        self, widths: Mapping[str, Tensor], variances: Mapping[str, Tensor], sizes: Mapping[str, int]
    ) -> Tensor:
        """Exact for independent groups, up to two axes of a tensor that share groups: E[w²] = E[w]² + Var[w]."""
        like = next(iter(widths.values()))
        free, owned, scale, whole = (
            torch.as_tensor(a, dtype=like.dtype, device=like.device)
            for a in (self._free, self._owned, self._scale / self.dense, self._sizes)
        )
        mean, spread = whole.clone(), torch.zeros_like(whole)
        index = torch.tensor([self._index[name] for name in widths], device=like.device)
        mean = mean.index_copy(0, index, torch.stack(list(widths.values())))
        spread = spread.index_copy(0, index, torch.stack([variances[name] for name in widths]))
        kept = free + owned @ mean
        products = kept.prod(1)
        for one, other in self._pairs:
            rest = [axis for axis in range(kept.shape[1]) if axis not in (one, other)]
            products = products + (owned[:, one] * owned[:, other]) @ spread * kept[:, rest].prod(1)
        return scale @ products * self.dense

    def _vector(self, widths: Mapping[str, int]) -> Array:
        vector = self._sizes.copy()
        for name, width in widths.items():
            vector[self._index[name]] = width
        return vector
