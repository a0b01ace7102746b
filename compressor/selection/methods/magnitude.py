"""Units with large weights are kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressor.selection.base import Scored
from compressor.selection.units import sum_per_unit
from compressor.structure.groups import ChannelGroup


class Magnitude(Scored):
    """Score a unit by the weights that produce it.

    The score is the unit's share of the squared L2 norm of a producer's weight, averaged over the producers of the
    group: each layer of a residual stream then has the same say, whatever the scale of its weights.
    """

    name = "magnitude"
    summary = "keeps the units with the largest weights (L2 norm of the filters)"
    paper = "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017"

    def scores(self, group: ChannelGroup, model: nn.Module) -> Tensor:
        tensors = model.state_dict()
        weights = [part for part in group.slices if part.role == "producer" and tensors[part.tensor].dim() > 1]
        norms = torch.stack([sum_per_unit(tensors[part.tensor].double().square(), part) for part in weights])
        return (norms / norms.sum(dim=1, keepdim=True).clamp_min(torch.finfo(norms.dtype).tiny)).mean(dim=0)
