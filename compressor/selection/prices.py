"""Prices that compare across groups: curves of imitation errors, scaled to the true loss at a few widths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from compressor.selection.base import Calibration, Ranking
from compressor.selection.consumers import is_centred, solve
from compressor.selection.moments import Moments, columns_of
from compressor.structure.groups import ChannelGroup, Groups
from compressor.structure.linear import write_matrix
from compressor.structure.watch import TensorNames, evaluating

SHARES = (0.75, 0.5, 0.25)
MOST_IMAGES, FEWEST_IMAGES = 256, 8
PASSES = 4
"""Pricing costs no more than this many passes over the calibration images, unless they are very few."""
FLOOR, WORST = 1e-9, 1e6


def price(calibration: Calibration, rankings: Mapping[str, Ranking], moments: dict[str, Moments]) -> dict[str, Ranking]:
    """Turn the errors of the rankings into the rise of the KL divergence to the dense network.

    Each group is cut to a few widths by itself, its consumers re-solved from the moments, and the divergence measured.
    Between and beyond these widths, the logarithm of the price is linear in the logarithm of the error.
    """
    model, groups = calibration.model, calibration.groups
    widths = {group.name: _widths(group) for group in groups}
    total = sum(len(batch[0]) for batch in calibration.images)
    share = PASSES * total // max(1, sum(map(len, widths.values())))
    held = _held_out(calibration.images, min(MOST_IMAGES, max(FEWEST_IMAGES, share)))
    with evaluating(model):
        dense = [_logits(model(*batch)) for batch in held]
        priced = {}
        for number, group in enumerate(groups):
            ranking = rankings[group.name]
            points = []
            for width in widths[group.name]:
                with _narrowed(model, groups, group, ranking.order[:width], moments):
                    points.append((ranking.error[width], _divergence(model, held, dense)))
            priced[group.name] = Ranking(ranking.order, _curve(ranking.error, points))
            calibration.progress(len(groups) + number + 1, 2 * len(groups))
    return priced


def _held_out(images: Sequence[tuple[Tensor, ...]], most: int) -> list[tuple[Tensor, ...]]:
    """The last images, at most that many."""
    chosen: list[tuple[Tensor, ...]] = []
    count = 0
    for batch in reversed(images):
        chosen.append(tuple(t[: most - count] for t in batch))
        count += len(chosen[-1][0])
        if count >= most:
            break
    return chosen


def _widths(group: ChannelGroup) -> list[int]:
    widths = {max(1, round(group.size * s / group.step)) * group.step for s in SHARES} | {group.fewest}
    return sorted(w for w in widths if w < group.size)


def _logits(outputs: Any) -> list[Tensor]:
    leaves = tree_leaves(dict(outputs) if hasattr(outputs, "items") else outputs)
    return [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]


def _divergence(model: nn.Module, batches: Sequence[tuple[Tensor, ...]], dense: Sequence[Sequence[Tensor]]) -> float:
    total, count = 0.0, 0
    for batch, targets in zip(batches, dense, strict=True):
        for out, target in zip(_logits(model(*batch)), targets, strict=True):
            each = F.kl_div(out.log_softmax(1), target.log_softmax(1), log_target=True, reduction="none").sum(1)
            total += float(each.mean() * len(batch[0]))
        count += len(batch[0])
    return min(total / count, WORST) if math.isfinite(total) else WORST


@contextmanager
def _narrowed(
    model: nn.Module, groups: Groups, group: ChannelGroup, kept: Sequence[int], moments: dict[str, Moments]
) -> Iterator[None]:
    """The network with one group narrowed, and its consumers re-solved."""
    tensors = TensorNames(model).tensors
    saved: dict[str, Tensor] = {}
    try:
        for cut in group.slices:
            if cut.role == "consumer" and cut.tensor in moments:
                own = moments[cut.tensor]
                matrix = _resolved(own, is_centred(model, groups, own), _kept_columns(own, cut, set(kept)))
                shifted = _shifted(groups, own)
                for name in (cut.tensor, *shifted):
                    saved.setdefault(name, tensors[name].detach().clone())
                write_matrix(own.call, matrix)
                shift = torch.einsum("gop,gp->go", own.weight - matrix, own.mean).flatten()
                for name, sign in shifted.items():
                    tensors[name].detach().add_((sign * shift).to(tensors[name].dtype))
        yield
    finally:
        for name, values in saved.items():
            tensors[name].detach().copy_(values)


def _kept_columns(moments: Moments, cut: Any, kept: set[int]) -> list[Tensor]:
    mask = torch.ones(moments.weight.shape[0], moments.weight.shape[2], dtype=torch.bool)
    for unit, parts in enumerate(columns_of(moments, cut)):
        if unit not in kept:
            for g, columns in parts:
                mask[g, columns] = False
    return [row.nonzero()[:, 0] for row in mask]


def _resolved(moments: Moments, center: bool, kept: Sequence[Tensor]) -> Tensor:
    matrix = torch.zeros_like(moments.weight)
    for g, columns in enumerate(kept):
        if not len(columns):
            continue
        matrix[g][:, columns] = solve(moments, g, columns, center)
    return matrix


def _shifted(groups: Groups, moments: Moments) -> dict[str, float]:
    """Where a change of the mean output is absorbed: the tensor, and the sign with which it enters."""
    if moments.call.bias is not None:
        return {moments.call.bias: 1.0}
    norm = groups.norms.get(moments.call.layer)
    return {f"{norm}.running_mean": -1.0} if norm else {}


def _curve(errors: Sequence[float], points: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """Interpolate log price over log error; the slope is kept within reason where a point says nothing."""
    known = sorted((math.log(max(e, FLOOR)), math.log(max(p, FLOOR))) for e, p in points if e > 0)
    if not known:
        return tuple(errors)
    x, y = np.array([k[0] for k in known]), np.maximum.accumulate(np.array([k[1] for k in known]))
    logs = np.log(np.maximum(np.array(errors), FLOOR))
    prices = np.exp(np.interp(logs, x, y) + np.minimum(0, logs - x[0]) + np.maximum(0, logs - x[-1]))
    prices[np.array(errors) <= 0] = 0
    return tuple(float(p) for p in np.maximum.accumulate(prices[::-1])[::-1])
