"""Bytes of the weights in the ONNX file."""

from __future__ import annotations

from torch import Tensor, nn

from compressor.budget.costs.tensor_cost import ProductCost
from compressor.structure.groups import Groups


class Size(ProductCost):
    """Bytes of the weights as the ONNX file holds them; its graph, a few hundred bytes per layer, is not counted.

    A batch norm straight after a layer is folded into it: all that stays of it is one bias per channel, and that only
    where the layer has none of its own. Any other batch norm keeps its four tensors.
    """

    name = "size"

    def __init__(self, model: nn.Module, groups: Groups) -> None:
        self._folded = set(groups.norms.values())
        self._biased = {norm for layer, norm in groups.norms.items() if _has_bias(model.get_submodule(layer))}
        super().__init__(model, groups)

    def tensor_cost(self, name: str, tensor: Tensor, groups: Groups) -> float:
        layer, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked" or (layer in self._folded and (kind != "bias" or layer in self._biased)):
            return 0
        return tensor.numel() * tensor.element_size()


def _has_bias(layer: nn.Module) -> bool:
    return getattr(layer, "bias", None) is not None
