"""What a selection method is, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import log
from typing import Any, ClassVar

from torch import Tensor, nn

from compressor.structure.groups import ChannelGroup, Groups
from compressor.tasks import DEFAULT, Task


@dataclass(frozen=True)
class Ranking:
    """An order of the units of a group, and what keeping only the first k of them costs.

    Attributes:
        order: All units, the most valuable first.
        error: `size + 1` numbers that never rise: `error[k]` is the price of keeping the first k units; the last is 0.
    """

    order: tuple[int, ...]
    error: tuple[float, ...]


@dataclass
class Calibration:
    """What a method may look at: training images in evaluation transform, and their targets where there are any.

    Attributes:
        model: The dense network in evaluation mode; a method leaves it as it found it.
        groups: The channel groups to rank.
        images: Batches of inputs, each what `model(*batch)` takes.
        labels: The targets of every batch, or None when the data has no labels.
        seed: Seeds every random choice of the method.
        progress: Called with (done, total) while the method works.
        task: What the network is for.
    """

    model: nn.Module
    groups: Groups
    images: Sequence[tuple[Tensor, ...]]
    labels: Sequence[Any] | None = None
    seed: int = 0
    progress: Callable[[int, int], None] = field(default=lambda done, total: None)
    task: Task = DEFAULT


class Method(ABC):
    """A selection method: ranks the units of every group. One file of this package per method."""

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    needs_labels: ClassVar[bool] = False
    takes_moments: ClassVar[bool] = False
    """Whether second moments of what all consumers read are taken, which needs memory."""

    @abstractmethod
    def rank(self, calibration: Calibration) -> dict[str, Ranking]:
        """Rank every group of `calibration.groups`, by its name."""


class Scored(Method):
    """Ranks the units of a group by numbers that its weights give."""

    def rank(self, calibration: Calibration) -> dict[str, Ranking]:
        model = calibration.model
        return {group.name: ranking_from_scores(group, self.scores(group, model)) for group in calibration.groups}

    @abstractmethod
    def scores(self, group: ChannelGroup, model: nn.Module) -> Tensor:
        """What each unit is worth, (units,)."""


def ranking_from_scores(group: ChannelGroup, scores: Tensor) -> Ranking:
    """Rank by descending score (ties keep their order).

    The error of a width is `-log(share of the score that is kept)` for every consumer of the group. What survives a
    chain of layers is the product of what survives each, so the sum of the errors is minus the logarithm of that
    product. Prices thus compare across groups, a residual stream weighs as much as the layers that read it, and no
    group is emptied to spare another. Nothing at all counts as half of an average unit.
    """
    values = [max(0.0, float(v)) for v in scores.double().tolist()]
    order = group.balanced(sorted(range(group.size), key=lambda u: (-values[u], u)))
    total = sum(values) or 1.0
    lost = [0.0, *accumulate(values[unit] / total for unit in reversed(order))]
    readers = max(1, len(group.consumers))
    error = [-readers * log(max(1 - share, 0.5 / group.size)) + 0.0 for share in lost]
    return Ranking(order, tuple(reversed(error)))
