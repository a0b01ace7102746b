"""Imitation: block forward greedy with the refit inside the objective, priced by the true loss."""

from __future__ import annotations

from compressor.selection.base import Calibration, Ranking
from compressor.selection.consumers import covariances
from compressor.selection.fit import errors_of, select
from compressor.selection.moment_method import Imitating
from compressor.selection.moments import Moments
from compressor.structure.groups import ChannelGroup


class Imitation(Imitating):
    """Ranks units by how well the consumers imitate their dense outputs with them, weights re-solved at every step.

    One pass over the images gives second moments of the consumers' inputs; everything after is linear algebra
    (`fit.select`). The curves are then scaled to the rise of the KL divergence to the dense network.
    """

    name = "imitation"
    summary = "block forward greedy with least-squares refit inside the objective; label-free (the default)"
    paper = "after arXiv 2010.15969 (greedy imitation), with the refit of column subset selection"

    def rank_group(self, calibration: Calibration, group: ChannelGroup, moments: dict[str, Moments]) -> Ranking:
        parts = covariances(calibration.groups, group, moments)
        order, errors = select(parts, group.size)
        if group.blocks:
            order = list(group.balanced(order))
            errors = errors_of(parts, order)
        return Ranking(tuple(order), tuple(errors))
