"""What becomes of the consumers of a group when only some units are kept, and their weights are re-solved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from compressor.selection.consumers import covariance, is_centred, owned, reads_others, spread
from compressor.selection.fit import Nested
from compressor.selection.moments import Moments
from compressor.structure.groups import ChannelGroup, Groups, Slice
from compressor.structure.surgery.linear import viewed, write_matrix
from compressor.support.modules import named_tensors


def narrowed(
    model: nn.Module,
    groups: Groups,
    group: ChannelGroup,
    order: Sequence[int],
    widths: Sequence[int],
    moments: dict[str, Moments],
) -> list[dict[str, Tensor]]:
    """Changes of the tensors of the network, by their names, for every width: the first units of an order are kept.

    A change of the mean output goes into the bias, or into the running mean of the batch norm that follows.
    """
    tensors = named_tensors(model)
    changes: list[dict[str, Tensor]] = [{} for _ in widths]
    for cut in group.slices:
        if cut.role != "consumer" or cut.tensor not in moments:
            continue
        own = moments[cut.tensor]
        differences = _resolved(own, cut, is_centred(groups, own), order, widths)
        for change, difference in zip(changes, differences, strict=True):
            tensor = change.setdefault(cut.tensor, torch.zeros_like(tensors[cut.tensor]))
            call = own.call
            write_matrix(replace(call, operand=viewed(call, tensors[cut.tensor], tensor)), difference)
            shift = -torch.einsum("gop,gp->go", difference, own.mean.to(difference.dtype)).flatten()
            for name, sign in _shifted(groups, own).items():
                change[name] = (sign * shift).to(tensors[name].dtype)
    return changes


def _resolved(moments: Moments, cut: Slice, center: bool, order: Sequence[int], widths: Sequence[int]) -> list[Tensor]:
    """For every width, what solving again changes of the weight; other groups' columns make up for the loss, too."""
    changes = [torch.zeros_like(moments.weight, dtype=torch.float32) for _ in widths]
    for g, members in owned(moments, cut).items():
        columns = torch.cat(list(members.values()))
        part = covariance(moments, g, members, center)
        nested = Nested(part, order[: max(widths, default=0)])
        others = spread(moments, g, columns, center) if reads_others(moments, columns) else None
        for change, width in zip(changes, widths, strict=True):
            difference = -moments.weight[g][:, columns].to(change.dtype)
            solved = nested.weight(width).to(change.dtype)
            kept = nested.columns[: len(solved)]
            if moments.wide:
                blocks = difference.unflatten(1, (len(members), -1))
                blocks[:, kept] *= 1 - solved[:, :, None].transpose(0, 1)
            else:
                difference[:, kept] += solved.t()
            change[g][:, columns] = difference
            if others is not None:
                rest, delivered = others
                change[g][:, rest] = -difference @ delivered.to(change.dtype)
    return changes


def _shifted(groups: Groups, moments: Moments) -> dict[str, float]:
    """Where a change of the mean output is absorbed: the tensor, and the sign with which it enters."""
    if moments.call.bias is not None:
        return {moments.call.bias: 1.0}
    norm = groups.norms.get(moments.call.layer)
    return {f"{norm}.running_mean": -1.0} if norm else {}
