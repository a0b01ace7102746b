"""Costs that are a sum over tensors of products over their cut axes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.budget.model import Array, CostModel, Widths
from compressor.structure.groups import Groups, Slice


class ProductCost(CostModel):
    """`sum over tensors of cost(tensor) * product over axes of the share of the axis that is kept`.

    A share is counted in coordinates: those that no group owns, plus those of the units kept in every group that owns a
    part of the axis (a concatenation has several). Where units own unequally many, each counts as the mean one.

    Args:
        model: The dense network.
        groups: Its channel groups.
    """

    def __init__(self, model: nn.Module, groups: Groups) -> None:
        tensors = _distinct_tensors(model)
        costs = {name: self.tensor_cost(name, tensor, groups) for name, tensor in tensors.items()}
        rows = {name: row for row, (name, cost) in enumerate(costs.items())}
        cuts = [(g, part) for g, group in enumerate(groups) for part in group.slices if part.tensor in rows]
        axes = 1 + max((part.axis for _, part in cuts), default=0)

        self._index = {group.name: g for g, group in enumerate(groups)}
        self._sizes = np.array([group.size for group in groups], dtype=float)
        self._owned = np.zeros((len(rows), axes, len(groups)))  # coordinates that one unit of each group owns
        length = np.ones((len(rows), axes))
        for g, part in cuts:
            at = rows[part.tensor], part.axis
            self._owned[at][g] += sum(map(len, part.coordinates)) / groups[g].size
            length[at] = _axis_length(tensors[part.tensor], part)
        self._free = length - self._owned @ self._sizes
        self._scale = np.array(list(costs.values()), dtype=float) / length.prod(axis=1)
        shared = np.einsum("tag,tbg->ab", self._owned, self._owned)
        self._pairs = [pair for pair in combinations(range(axes), 2) if shared[pair]]  # axes that share a group
        self._touched = [np.flatnonzero(self._owned[:, :, g].any(axis=1)) for g in range(len(groups))]

    @abstractmethod
    def tensor_cost(self, name: str, tensor: Tensor, groups: Groups) -> float:
        """The cost of one tensor of the dense network; `name` is its full name in the model."""

    def total(self, widths: Widths) -> float:
        kept = self._free + self._owned @ self._vector(widths)
        return float(self._scale @ kept.prod(axis=1))

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


def _axis_length(tensor: Tensor, part: Slice) -> int:
    return tensor.shape[part.axis] * part.conv_groups


def _distinct_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by their names; shared ones once, by their first name."""
    return dict([*model.named_parameters(), *model.named_buffers()])
