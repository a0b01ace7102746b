"""Imitation: block forward greedy with the refit inside the objective, priced by the true loss."""

from __future__ import annotations

from compressor.selection.base import Calibration, Method, Ranking
from compressor.selection.consumers import covariances
from compressor.selection.fit import select
from compressor.selection.moments import Moments, collect_moments
from compressor.selection.prices import price
from compressor.structure.groups import ChannelGroup, Groups


class Imitation(Method):
    """Ranks units by how well the consumers imitate their dense outputs with them, weights re-solved at every step.

    One pass over the images gives second moments of the consumers' inputs; everything after is linear algebra
    (`fit.select`). The curves are then scaled to the rise of the KL divergence to the dense network.
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
    order, errors = select(parts, group.size)
    if group.blocks:
        order, errors = select(parts, group.size, group.balanced(order))
    return Ranking(tuple(order), tuple(errors))
