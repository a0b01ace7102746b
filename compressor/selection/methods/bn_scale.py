"""Units that batch norm scales up are kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.errors import InputError
from compressor.selection.base import Scored
from compressor.selection.units import sum_per_unit
from compressor.structure.groups import ChannelGroup


class BatchNormScale(Scored):
    """Score a unit by the absolute scale that batch norm gives it, averaged over the batch norms of its group."""

    name = "bn_scale"
    summary = "keeps the units with the largest batch-norm scale (needs a batch norm in every group)"
    paper = "Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017"

    def scores(self, group: ChannelGroup, model: nn.Module) -> Tensor:
        scales = [
            sum_per_unit(model.get_parameter(part.tensor).abs(), part)
            / torch.tensor([len(c) for c in part.coordinates])
            for part in group.slices
            if part.tensor.endswith(".weight") and isinstance(model.get_submodule(part.layer), _BatchNorm)
        ]
        if not scales:
            raise InputError(
                "bn_scale ranks units by batch norm, and this group has none",
                where=f"channel group '{group.name}'",
                cure="choose another method, or list the group's layers under `compress.keep`",
            )
        return torch.stack(scales).mean(dim=0)
