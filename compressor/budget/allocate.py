"""Choosing the width of every group so that a budget is met at the lowest price."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, lcm
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compressor.budget.costs.base import Array, CostModel
from compressor.errors import InputError
from compressor.selection.base import Ranking
from compressor.structure.groups import ChannelGroup, Groups

ROUNDS = 3
"""Most rounds of kicks over all groups."""
WORTHWHILE = 1e-3
"""Share of the price that a round of kicks must save for another one to follow."""
NEGLIGIBLE = 1e-9
"""Share of the dense cost below which a saving is one of rounding only."""


def allocate(
    groups: Groups,
    rankings: Mapping[str, Ranking],
    cost: CostModel,
    target: float,
    *,
    multiple_of: int = 1,
    minimum: int = 1,
) -> dict[str, int]:
    """Choose widths with `cost.total(widths) <= target * cost.dense` and the lowest sum of prices `error[width]`.

    From the dense network down: always the change of one group's width that costs the least price per cost saved,
    where the saving is what it is at the present widths of all other groups. Then what is left of the budget is spent,
    and single groups are kicked to other widths, with all others following suit, as long as that lowers the price.
    The result depends on the arguments only.

    Args:
        groups: The groups to choose widths for.
        rankings: The price curve of every group, by its name.
        cost: What a choice of widths costs.
        target: Share of the dense cost to keep, above 0 and at most 1.
        multiple_of: Widths are multiples of this and of the group's own step; full width is always allowed.
        minimum: Fewest units that a group keeps, unless it vanishes altogether: where it can, at a finite price.

    Returns:
        The kept units of every group, by its name.

    Raises:
        InputError: the target is below what the smallest widths cost.
    """
    search = _Search(groups, rankings, cost, target * cost.dense, multiple_of, minimum)
    search.descend()
    if search.total > search.budget:
        search.narrow()
    if search.total > search.budget:
        smallest = ceil(search.total / cost.dense * 1e4) / 1e4
        raise InputError(
            f"{target:g} of the dense {cost.name} cannot be reached: the smallest widths keep {smallest:g}",
            where="compress.target",
            cure=f"raise the target to {smallest:g} or more, lower `multiple_of`, or let more layers be pruned",
        )
    search.polish()
    return search.widths


def narrowest(
    groups: Groups, cost: CostModel, *, multiple_of: int = 1, rankings: Mapping[str, Ranking] | None = None
) -> dict[str, int]:
    """The least widths that a network can have: of groups that cannot vanish together, those that save most do.

    Args:
        groups: Its groups.
        cost: What is to be saved.
        multiple_of: As in `allocate`.
        rankings: Groups vanish only at a finite price, where prices are known.
    """
    priced = [g for g in groups if g.vanishes and (rankings is None or isfinite(rankings[g.name].error[0]))]
    widths = {group.name: min(group.size, lcm(group.step, multiple_of)) for group in groups}
    return _without(groups, cost, widths, [group.name for group in priced])


def _without(groups: Groups, cost: CostModel, widths: dict[str, int], names: Sequence[str]) -> dict[str, int]:
    """Widths at which all those of the named groups vanish that can together, the one that saves most first."""
    gone: set[str] = set(names) if groups.may_vanish(names) else set()
    if not gone:
        for name in sorted(names, key=lambda name: cost.change(widths, name, 0)):
            gone |= {name} if groups.may_vanish(gone | {name}) else set()
    return widths | dict.fromkeys(gone, 0)


@dataclass(frozen=True)
class Budget:
    """A target, and what it is a target on.

    Attributes:
        cost: A cost model.
        share: Of the dense cost to keep, above 0 and at most 1.
        multiple_of: As in `allocate`.
    """

    cost: CostModel
    share: float
    multiple_of: int = 1

    def widths(self, groups: Groups, rankings: Mapping[str, Ranking]) -> dict[str, int]:
        """Choose the widths that meet it."""
        return allocate(groups, rankings, self.cost, self.share, multiple_of=self.multiple_of)


class Move(NamedTuple):
    """Another width for a group, and the price that it costs per cost."""

    slope: float
    width: int


class _Search:
    """Widths, and the moves that improve them."""

    def __init__(
        self,
        groups: Groups,
        rankings: Mapping[str, Ranking],
        cost: CostModel,
        budget: float,
        multiple_of: int,
        minimum: int,
    ) -> None:
        self.cost, self.budget, self.groups = cost, budget, groups
        self.widths = {group.name: group.size for group in groups}
        self.allowed = {
            group.name: allowed_widths(group, rankings[group.name], multiple_of, minimum) for group in groups
        }
        self.prices = {name: np.array(rankings[name].error)[widths] for name, widths in self.allowed.items()}
        self.total, self.dense = cost.total(self.widths), cost.dense

    @property
    def price(self) -> float:
        """Sum of the prices of the present widths."""
        return float(sum(self.prices[name][self._place(name)] for name in self.widths))

    def descend(self, fixed: str | None = None) -> None:
        """Narrow groups, but not `fixed`, by the least price per cost saved, until the budget is met."""
        self._repeat(self._narrowing, fixed)

    def spend(self, fixed: str | None = None) -> None:
        """Widen groups, but not `fixed`, by the most price saved per cost, as long as a wider one fits."""
        self._repeat(self._widening, fixed)

    def narrow(self) -> None:
        """Take the least widths."""
        least = {name: int(allowed[allowed > 0][0]) for name, allowed in self.allowed.items()}
        self.widths = _without(self.groups, self.cost, least, [n for n, own in self.allowed.items() if not own[0]])
        self.total = self.cost.total(self.widths)

    def polish(self) -> None:
        """Kick one group after the other to other widths, let all others follow, and keep what lowers the price."""
        for _ in range(ROUNDS):
            before = self.price
            for name, allowed in self.allowed.items():
                for step in _kicks(len(allowed)):
                    self._kick(name, step)
            self.spend()
            if self.price >= before * (1 - WORTHWHILE):
                break

    def _repeat(self, best: Callable[[str], Move | None], fixed: str | None) -> None:
        """Make the move with the least slope again and again, until no group has a move left.

        The groups wait in a heap under the slope that they had when they were last looked at. Where costs multiply, a
        move only makes the moves of its kind in other groups dearer: an old slope is a lower bound, and only the top
        of the heap must be looked at again.
        """
        heap = [(-np.inf, name) for name in sorted(self.widths) if name != fixed]
        while heap:
            _, name = heapq.heappop(heap)
            if (move := best(name)) is None:
                continue
            if not heap or move.slope <= heap[0][0]:
                self._set(name, move.width)
            heapq.heappush(heap, (move.slope, name))

    def _kick(self, name: str, step: int) -> None:
        place = self._place(name) + step
        if not 0 <= place < len(self.allowed[name]) or not self._possible(name)[place]:
            return
        widths, total, price = dict(self.widths), self.total, self.price
        self._set(name, int(self.allowed[name][place]))
        self.descend(fixed=name)
        self.spend(fixed=name)
        if self.total > self.budget or self.price >= price:
            self.widths, self.total = widths, total

    def _narrowing(self, name: str) -> Move | None:
        """The change of a group's width that saves cost at the least price; none once the budget is met."""
        if self.total <= self.budget:
            return None
        rise, change = self._changes(name)
        return self._least(name, rise, -change, (change < -NEGLIGIBLE * self.dense) & self._possible(name))

    def _widening(self, name: str) -> Move | None:
        """The wider width of a group that fits into the budget and saves the most price per cost."""
        rise, change = self._changes(name)
        fits = (self.allowed[name] > self.widths[name]) & (self.total + change <= self.budget)
        return self._least(name, rise, change, fits & self._possible(name))

    def _least(self, name: str, rise: Array, cost: Array, among: NDArray[np.bool_]) -> Move | None:
        """The move of a group with the least `rise` per `cost`; of equals the widest."""
        places = np.flatnonzero(among)[::-1]
        if not places.size:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = np.where(cost[places] > 0, rise[places] / cost[places], -np.inf)
        best = int(slopes.argmin())
        return Move(float(slopes[best]), int(self.allowed[name][places[best]]))

    def _changes(self, name: str) -> tuple[Array, Array]:
        """How the price and the cost change with every allowed width of a group."""
        prices = self.prices[name]
        return prices - prices[self._place(name)], self.cost.changes(self.widths, name, self.allowed[name])

    def _possible(self, name: str) -> NDArray[np.bool_]:
        """Which of its allowed widths a group may have beside the groups that have vanished."""
        allowed = self.allowed[name]
        if allowed[0]:
            return np.ones(len(allowed), dtype=bool)
        others = {other for other, width in self.widths.items() if not width and other != name}
        return np.where(allowed == 0, self.groups.may_vanish({*others, name}), self.groups.may_vanish(others))

    def _place(self, name: str) -> int:
        return int(np.searchsorted(self.allowed[name], self.widths[name]))

    def _set(self, name: str, width: int) -> None:
        self.total += self.cost.change(self.widths, name, width)
        self.widths[name] = width


def _kicks(count: int) -> list[int]:
    """Steps on a list of `count` allowed widths: to the neighbours, and to some further off."""
    steps = sorted({1, max(1, count // 16), max(1, count // 4)})
    return [*steps, *(-step for step in steps)]


def allowed_widths(group: ChannelGroup, ranking: Ranking, multiple_of: int = 1, minimum: int = 1) -> NDArray[np.int64]:
    """The widths that a group may take, from narrow to full."""
    step = lcm(group.step, multiple_of)
    none = [0] if group.vanishes and isfinite(ranking.error[0]) else []
    return np.array(none + [w for w in range(step, group.size, step) if w >= minimum] + [group.size])
