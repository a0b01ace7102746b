"""A network with gates: every unit is multiplied by its gate where its consumers read it.

A consumer is linear in its inputs, so the gate of an input is multiplied onto the weights that read it. That needs no
hooks, holds for every kind of network whose groups are known, and in the end leaves only weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from compressor.structure.groups import Groups, Slice
from compressor.support.modules import named_tensors


class Columns:
    """Which columns of the consumers' weights read which unit.

    Args:
        model: The network.
        groups: Its groups; their units are counted one group after the other.
    """

    def __init__(self, model: nn.Module, groups: Groups) -> None:
        tensors = named_tensors(model)
        offsets = [0]
        for group in groups:
            offsets.append(offsets[-1] + group.size)
        self.units = offsets[-1]
        self._index: dict[tuple[str, int, int], Tensor] = {}  # the unit of every column; of others, one past the last
        for group, offset in zip(groups, offsets, strict=False):
            for s in group.slices:
                if s.role == "consumer":
                    self._note(s, offset, tensors[s.tensor].shape[s.axis] * s.conv_groups)

    def _note(self, cut: Slice, offset: int, length: int) -> None:
        key = (cut.tensor, cut.axis, cut.conv_groups)
        index = self._index.setdefault(key, torch.full((length,), self.units))
        for unit, coordinates in enumerate(cut.coordinates):
            index[list(coordinates)] = offset + unit

    def multiplied(self, tensors: dict[str, Tensor], gates: Tensor) -> dict[str, Tensor]:
        """The consumers' weights with the gates on them.

        Args:
            tensors: Parameters and buffers of the network.
            gates: One factor per unit, (units,).
        """
        factors = torch.cat([gates, gates.new_ones(1)])
        results: dict[str, Tensor] = {}
        for (name, axis, conv_groups), index in self._index.items():
            weight = results.get(name, tensors[name])
            if index.device != factors.device:
                index = self._index[name, axis, conv_groups] = index.to(factors.device)
            results[name] = _times(weight, factors[index].to(weight.dtype), axis, conv_groups)
        return results


def _times(weight: Tensor, factors: Tensor, axis: int, conv_groups: int) -> Tensor:
    """Multiply a weight along an axis, whose factors are counted over all groups of a grouped convolution."""
    if conv_groups == 1:
        return weight * factors.view(-1, *[1] * (weight.dim() - axis - 1))
    parts = weight.unflatten(0, (conv_groups, -1))
    shape = (conv_groups, *[1] * axis, -1, *[1] * (weight.dim() - axis - 1))
    return (parts * factors.view(shape)).flatten(0, 1)


class Gated(nn.Module):
    """A network and the factors that its next passes multiply its units by.

    Attributes:
        model: The network, trained in place.
        columns: Where the units are read.
    """

    def __init__(self, model: nn.Module, groups: Groups) -> None:
        super().__init__()
        self.model, self.columns = model, Columns(model, groups)

    def run(self, inputs: Sequence[Any], gates: Tensor) -> Any:
        """The network's outputs with these gates, (units,)."""
        return functional_call(self.model, self.columns.multiplied(self._tensors(), gates), tuple(inputs))

    def fold(self, gates: Tensor) -> None:
        """Multiply the gates into the weights, in place, for good."""
        tensors = self._tensors()
        with torch.no_grad():
            for name, weight in self.columns.multiplied(tensors, gates).items():
                tensors[name].copy_(weight)

    def _tensors(self) -> dict[str, Tensor]:
        return named_tensors(self.model)
