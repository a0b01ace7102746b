"""What the consumers of a group say about its units, from their second moments."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from compressor.selection.contributions import contributions
from compressor.selection.fit import Covariance
from compressor.selection.moments import Moments, columns_of
from compressor.structure.groups import ChannelGroup, Groups, Slice
from compressor.support.linalg import factor, precision


def is_centred(groups: Groups, moments: Moments) -> bool:
    """True where a change of the mean output can be absorbed, by a bias or by the batch norm that follows."""
    return moments.call.bias is not None or moments.call.layer in groups.norms


def covariances(groups: Groups, group: ChannelGroup, moments: dict[str, Moments]) -> list[Covariance]:
    """One covariance for every consumer of the group (and every convolution group of it), outputs of unit energy."""
    found = []
    for cut in group.slices:
        if cut.role == "consumer" and cut.tensor in moments:
            own = moments[cut.tensor]
            for g, members in owned(own, cut).items():
                found.append(covariance(own, g, members, is_centred(groups, own), own.scale[g]))
    total = sum(c.energy for c in found) or 1.0
    for c in found:
        c.cross /= total**0.5
        c.energy /= total
    return found


def owned(moments: Moments, cut: Slice) -> dict[int, dict[int, Tensor]]:
    """For every convolution group of a consumer, the columns of the units that it reads."""
    by_group: dict[int, dict[int, Tensor]] = {}
    for unit, parts in enumerate(columns_of(moments, cut)):
        for g, columns in parts:
            by_group.setdefault(g, {})[unit] = columns
    return by_group


def covariance(
    moments: Moments, g: int, members: Mapping[int, Tensor], center: bool, scale: Tensor | float = 1.0
) -> Covariance:
    """What a consumer reads of some units, and what it makes of it.

    Columns that belong to other groups are taken as always kept, and projected out. Of a wide consumer, each unit is
    one column, what it contributes with its dense weights, and all that is solved for is a factor.

    Args:
        moments: The consumer.
        g: Its convolution group.
        members: Columns of each unit.
        center: Whether a change of the mean output can be absorbed.
        scale: Weights of the errors of the outputs, (outputs,).
    """
    units, area = torch.tensor(list(members)), len(next(iter(members.values())))
    if moments.wide:
        matrix = contributions(moments, g, members, center, scale)
        return Covariance(matrix, matrix.sum(1, keepdim=True), float(matrix.sum()), 1, units, moments.ridge)
    columns = torch.cat(list(members.values()))
    if reads_others(moments, columns):
        inverse, ridge = moments.inverse(g, center)
        matrix = torch.cholesky_inverse(factor(inverse[columns][:, columns]))
        matrix.diagonal().sub_(ridge)
        matrix = matrix.to(precision(len(columns)))
    else:
        matrix = moments.second(g, columns, center)
    own = moments.weight[g][:, columns].to(matrix.dtype) * torch.as_tensor(scale, dtype=matrix.dtype).reshape(-1, 1)
    cross = matrix @ own.t()
    energy = float((own.t() * cross).sum(dtype=torch.float64).clamp_min(0))
    return Covariance(matrix, cross, energy, area, units, moments.ridge)


def reads_others(moments: Moments, columns: Tensor) -> bool:
    """Whether the consumer has inputs besides these that can be projected out."""
    return len(columns) < moments.weight.shape[2] and not moments.wide


def spread(moments: Moments, g: int, columns: Tensor, center: bool) -> tuple[Tensor, Tensor]:
    """The other inputs of a consumer, and what of each of these columns they can deliver: (others,), (columns, others).

    That is least squares, read off the inverse of the whole covariance.
    """
    inverse, _ = moments.inverse(g, center)
    others = torch.ones(len(inverse), dtype=torch.bool)
    others[columns] = False
    rows = inverse[columns]
    return others.nonzero()[:, 0], -torch.cholesky_solve(rows[:, others], factor(rows[:, columns]))
