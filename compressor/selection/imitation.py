"""Imitation: block forward greedy with the refit inside the objective, priced by the true loss."""

from __future__ import annotations

import torch

from compressor.selection.base import Calibration, Method, Ranking
from compressor.selection.consumers import covariances
from compressor.selection.fit import BlockGreedy, Covariance
from compressor.selection.moments import Moments, collect_moments
from compressor.selection.prices import price
from compressor.structure.groups import ChannelGroup, Groups


class Imitation(Method):
    """Ranks units by how well the consumers imitate their dense outputs with them, weights re-solved at every step.

    One pass over the images gives second moments of the consumers' inputs; everything after is linear algebra
    (`BlockGreedy`). The curves are then scaled to the rise of the KL divergence to the dense network.
    """

    name = "imitation"
    summary = "block forward greedy with least-squares refit inside the objective; label-free (the default)"
    paper = "after arXiv 2010.15969 (greedy imitation), with the refit of column subset selection"

    def rank(self, calibration: Calibration) -> dict[str, Ranking]:
        groups = calibration.groups
        consumers = [s.tensor for g in groups for s in g.slices if s.role == "consumer"]
        moments = collect_moments(calibration.model, consumers, calibration.images, seed=calibration.seed)
        rankings = {}
        for number, group in enumerate(groups):
            rankings[group.name] = rank_group(calibration, groups, group, moments)
            calibration.progress(number + 1, 2 * len(groups))
        return price(calibration, rankings, moments)


def rank_group(calibration: Calibration, groups: Groups, group: ChannelGroup, moments: dict[str, Moments]) -> Ranking:
    """Order of the units of one group, and the error of the consumers' outputs for every width."""
    parts = covariances(calibration.model, groups, group, moments)
    order, errors = _greedy(group, parts)
    if group.blocks:
        order = group.balanced(order)
        _, errors = _greedy(group, parts, order)
    return Ranking(tuple(order), tuple(errors))


def _greedy(
    group: ChannelGroup, parts: list[Covariance], order: tuple[int, ...] | None = None
) -> tuple[tuple[int, ...], list[float]]:
    states = [BlockGreedy(part) for part in parts]
    chosen: list[int] = []
    errors = [sum(state.error for state in states)]
    taken = torch.zeros(group.size, dtype=torch.bool)
    for step in range(group.size):
        if order is None:
            gains = torch.stack([state.gains(group.size) for state in states]).sum(0)
            unit = int(gains.masked_fill(taken, -1.0).argmax())
        else:
            unit = order[step]
        taken[unit] = True
        chosen.append(unit)
        for state in states:
            state.add(unit)
        errors.append(min(errors[-1], sum(state.error for state in states)))
    return tuple(chosen), [max(0.0, e - errors[-1]) for e in errors]
