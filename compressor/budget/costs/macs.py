"""Multiply-adds of one input."""

from __future__ import annotations

from torch import Tensor

from compressor.budget.costs.tensor_cost import ProductCost
from compressor.structure.groups import Groups


class Macs(ProductCost):
    """Multiply-adds of everything that has weights: elements of the weight times the positions it is used at.

    Products of activations with activations (attention scores) have no weights and are not counted.
    """

    name = "macs"

    def tensor_cost(self, name: str, tensor: Tensor, groups: Groups) -> float:
        return tensor.numel() * groups.positions.get(name, 0)
