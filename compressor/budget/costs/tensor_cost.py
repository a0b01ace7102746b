"""Costs that the tensors of a network add up to, each in proportion to its kept elements."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from compressor.budget.costs.axes import find_axes
from compressor.budget.costs.products import Products
from compressor.structure.groups import Groups
from compressor.support.modules import named_tensors


class ProductCost(Products):
    """A cost of every tensor, as `Products` of its cut axes.

    Args:
        model: The dense network.
        groups: Its channel groups.
    """

    def __init__(self, model: nn.Module, groups: Groups) -> None:
        tensors = named_tensors(model)  # shared ones once, by their first name
        costs = {name: self.tensor_cost(name, tensor, groups) for name, tensor in tensors.items()}
        super().__init__(costs, find_axes(model, groups), {group.name: group.size for group in groups})

    @abstractmethod
    def tensor_cost(self, name: str, tensor: Tensor, groups: Groups) -> float:
        """The cost of one tensor of the dense network; `name` is its full name in the model."""
