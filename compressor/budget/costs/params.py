"""Number of parameters."""

from __future__ import annotations

from torch import Tensor, nn

from compressor.budget.costs.tensor_cost import ProductCost
from compressor.structure.groups import Groups


class Params(ProductCost):
    """Elements of all parameters; shared ones count once."""

    name = "params"

    def tensor_cost(self, name: str, tensor: Tensor, groups: Groups) -> float:
        return tensor.numel() if isinstance(tensor, nn.Parameter) else 0
