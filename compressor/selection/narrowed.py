"""What becomes of the consumers of a group when only some units are kept, and their weights are re-solved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from compressor.selection.consumers import is_centred, solve
from compressor.selection.moments import Moments, columns_of
from compressor.structure.groups import ChannelGroup, Groups, Slice
from compressor.structure.linear import write_matrix
from compressor.structure.watch import WeightCall


def narrowed(
    model: nn.Module, groups: Groups, group: ChannelGroup, kept: Sequence[int], moments: dict[str, Moments]
) -> dict[str, Tensor]:
    """Changes of the tensors of the network, by their names.

    A change of the mean output goes into the bias, or into the running mean of the batch norm that follows.
    """
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    changes: dict[str, Tensor] = {}
    for cut in group.slices:
        if cut.role != "consumer" or cut.tensor not in moments:
            continue
        own = moments[cut.tensor]
        matrix = _resolved(own, is_centred(model, groups, own), _kept_columns(own, cut, set(kept)))
        change = changes.setdefault(cut.tensor, torch.zeros_like(tensors[cut.tensor]))
        write_matrix(_on(own.call, tensors[cut.tensor], change), matrix - own.weight)
        shift = torch.einsum("gop,gp->go", own.weight - matrix, own.mean).flatten()
        for name, sign in _shifted(groups, own).items():
            changes[name] = (sign * shift).to(tensors[name].dtype)
    return changes


def _on(call: WeightCall, tensor: Tensor, other: Tensor) -> WeightCall:
    """The call, with its view of the weight on another tensor of the same layout."""
    view = call.operand
    offset = int(view.storage_offset()) - int(tensor.storage_offset())
    return replace(call, operand=other.as_strided(view.shape, view.stride(), offset))


def _kept_columns(moments: Moments, cut: Slice, kept: set[int]) -> list[Tensor]:
    mask = torch.ones(moments.weight.shape[0], moments.weight.shape[2], dtype=torch.bool)
    for unit, parts in enumerate(columns_of(moments, cut)):
        if unit not in kept:
            for g, columns in parts:
                mask[g, columns] = False
    return [row.nonzero()[:, 0] for row in mask]


def _resolved(moments: Moments, center: bool, kept: Sequence[Tensor]) -> Tensor:
    matrix = torch.zeros_like(moments.weight)
    for g, columns in enumerate(kept):
        if len(columns):
            matrix[g][:, columns] = solve(moments, g, columns, center)
    return matrix


def _shifted(groups: Groups, moments: Moments) -> dict[str, float]:
    """Where a change of the mean output is absorbed: the tensor, and the sign with which it enters."""
    if moments.call.bias is not None:
        return {moments.call.bias: 1.0}
    norm = groups.norms.get(moments.call.layer)
    return {f"{norm}.running_mean": -1.0} if norm else {}
