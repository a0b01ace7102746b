"""From rankings to the logits that gates start with, and from learnt logits back to rankings."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from math import exp

import torch
from torch import Tensor

from compressor.gates.base import OPEN
from compressor.selection.base import Ranking
from compressor.structure.groups import Groups

STEEPNESS = 2.0
"""The price of a unit is exp(2 logit): steep enough that what the gates closed goes before what they kept open,
whatever either costs; among equal logits the dearer unit goes."""
LARGEST = 10.0
"""Logits above this are priced alike."""
KEPT, DROPPED = (OPEN, OPEN + 1), (-1.0, 1.0)
"""Logits of the units that an allocation kept and dropped, from the least valuable to the most valuable."""


def rankings_of(groups: Groups, logits: Tensor) -> dict[str, Ranking]:
    """Rank the units of every group by their logits, (units,)."""
    rankings = {}
    for group, own in zip(groups, _split(groups, logits), strict=True):
        order = group.balanced(sorted(range(group.size), key=lambda unit: (-own[unit], unit)))
        prices = (exp(STEEPNESS * min(own[unit], LARGEST)) for unit in reversed(order))
        rankings[group.name] = Ranking(order, tuple(accumulate(prices, initial=0.0))[::-1])
    return rankings


def logits_of(groups: Groups, rankings: Mapping[str, Ranking], widths: Mapping[str, int]) -> Tensor:
    """Logits, (units,), with which gates start from a ranking: all open, the units beyond `widths` less so."""
    parts = []
    for group in groups:
        width, logits = widths[group.name], torch.empty(group.size)
        order = torch.tensor(rankings[group.name].order)
        logits[order[:width]] = torch.linspace(KEPT[1], KEPT[0], width)
        logits[order[width:]] = torch.linspace(DROPPED[1], DROPPED[0], group.size - width)
        parts.append(logits)
    return torch.cat(parts)


def _split(groups: Groups, logits: Tensor) -> list[list[float]]:
    return [part.tolist() for part in logits.double().cpu().split([group.size for group in groups])]
