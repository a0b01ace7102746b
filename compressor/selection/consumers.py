"""What the consumers of a group say about its units, from their second moments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressor.factor import factor
from compressor.selection.fit import Covariance
from compressor.selection.moments import Moments, columns_of
from compressor.structure.groups import ChannelGroup, Groups

RIDGE = 1e-4
FEW_ROWS_RIDGE = 1e-2


def is_centred(model: nn.Module, groups: Groups, moments: Moments) -> bool:
    """True where a change of the mean output can be absorbed, by a bias or by the batch norm that follows."""
    return moments.call.bias is not None or moments.call.layer in groups.norms


def output_scale(model: nn.Module, groups: Groups, moments: Moments) -> Tensor:
    """Weight of the error of each output, (groups, outputs): what the batch norm that follows makes of it, else 1."""
    shape = moments.weight.shape[:2]
    norm = groups.norms.get(moments.call.layer)
    if norm is None:
        return torch.ones(shape, dtype=torch.float64)
    module = model.get_submodule(norm)
    assert isinstance(module.running_var, Tensor) and isinstance(module.eps, float)
    scale = (module.running_var.double() + module.eps).rsqrt()
    if isinstance(module.weight, Tensor):
        scale = scale * module.weight.detach().double().abs()
    return scale.reshape(shape)


def covariances(model: nn.Module, groups: Groups, group: ChannelGroup, moments: dict[str, Moments]) -> list[Covariance]:
    """One covariance for every consumer of the group (and every convolution group of it), outputs of unit energy.

    Columns that belong to other groups are taken as always kept, and projected out.
    """
    found = []
    for cut in group.slices:
        if cut.role != "consumer" or cut.tensor not in moments:
            continue
        own = moments[cut.tensor]
        center = is_centred(model, groups, own)
        scale = output_scale(model, groups, own)
        by_group: dict[int, list[tuple[int, Tensor]]] = {}
        for unit, parts in enumerate(columns_of(own, cut)):
            for g, columns in parts:
                by_group.setdefault(g, []).append((unit, columns))
        for g, members in by_group.items():
            found.append(_covariance(own, g, members, scale[g], center))
    total = sum(c.energy for c in found) or 1.0
    for c in found:
        c.cross /= total**0.5
        c.energy /= total
    return found


def _covariance(
    moments: Moments, g: int, members: Sequence[tuple[int, Tensor]], scale: Tensor, center: bool
) -> Covariance:
    columns = torch.cat([c for _, c in members])
    weight = moments.weight[g] * scale[:, None]
    full = moments.columns(g, columns, center)
    matrix, cross = full[columns], full.t() @ weight.t()
    others = torch.ones(weight.shape[1], dtype=torch.bool)
    others[columns] = False
    rest = others.nonzero()[:, 0]
    if len(rest) and not moments.wide:
        inner = moments.columns(g, rest, center)
        inner_cross, shared = inner.t() @ weight.t(), full[rest]
        inner = inner[rest]
        inner.diagonal().add_(RIDGE * inner.diagonal().mean().clamp_min(1e-30))
        chol = factor(inner)
        matrix = matrix - shared.t() @ torch.cholesky_solve(shared, chol)
        cross = cross - shared.t() @ torch.cholesky_solve(inner_cross, chol)
    own = weight[:, columns]
    energy = float((own @ matrix * own).sum().clamp_min(0))
    units = torch.tensor([u for u, _ in members])
    return Covariance(matrix, cross, energy, len(members[0][1]), units)


def solve(moments: Moments, g: int, kept: Tensor, center: bool) -> Tensor:
    """Least squares: the weight on the kept columns that imitates the whole one best, (outputs, kept)."""
    inputs = moments.weight.shape[2]
    ridge = RIDGE if moments.rows >= 10 * inputs else FEW_ROWS_RIDGE
    columns = moments.columns(g, kept, center)
    inner = columns[kept]
    inner.diagonal().add_(ridge * inner.diagonal().mean().clamp_min(1e-30))
    return torch.cholesky_solve(columns.t() @ moments.weight[g].t(), factor(inner)).t()
