"""Any units: the baseline that every other method must beat."""

from __future__ import annotations

from random import Random

import torch

from compressor.selection.base import Calibration, Method, Ranking, ranking_from_scores


class RandomOrder(Method):
    """Shuffle the units of every group; all are worth the same."""

    name = "random"
    summary = "keeps units at random; the baseline"
    paper = "Liu et al., Rethinking the Value of Network Pruning, ICLR 2019 (baseline)"

    def rank(self, calibration: Calibration) -> dict[str, Ranking]:
        rankings = {}
        for group in calibration.groups:
            order = Random(f"{calibration.seed} {group.name}").sample(range(group.size), group.size)
            equal = ranking_from_scores(group, torch.ones(group.size))
            rankings[group.name] = Ranking(group.balanced(order), equal.error)
        return rankings
