"""Widths whose measured speed-up meets the target: choose, measure, correct the budget, choose again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from compressor.budget.model import Widths
from exporters.statistics import Speedup

ATTEMPTS = 10
MARGIN, LAVISH = 1.01, 1.05
"""The lower end of an interval is to lie above the target by the first; a median above it by the second is too much."""
FINE = 1.004
"""Budgets that differ by less than this are the same."""


@dataclass(frozen=True)
class Attempt:
    """A choice of widths that was measured.

    Attributes:
        share: The budget that it was chosen for, as a share of the dense cost.
        widths: Kept units by the name of the group.
        price: What the widths cost in quality.
        speedup: As measured.
    """

    share: float
    widths: dict[str, int]
    price: float
    speedup: Speedup

    def holds(self, target: float) -> bool:
        """Whether the speed-up is at least the target, for certain."""
        return self.speedup.low >= target * MARGIN


def pursue(
    target: float,
    floor: float,
    narrowest: dict[str, int],
    choose: Callable[[float], dict[str, int]],
    price: Callable[[Widths], float],
    measure: Callable[[Widths], Speedup],
    possible: Callable[[Widths], bool] = lambda widths: True,
) -> list[Attempt]:
    """Find widths whose measured speed-up is the target or little more.

    First the budget is corrected by what was measured. Where the speed-up jumps between two budgets, the groups
    take the widths of the faster choice one after the other.

    Args:
        target: The speed-up that is wanted.
        floor: The least share of the dense cost that widths can have.
        narrowest: The least widths, which decide whether the target is out of reach.
        choose: Gives widths for a share of the dense cost.
        price: What widths cost in quality.
        measure: Measures widths.
        possible: Whether a network can have widths that were put together from two choices.

    Returns:
        All attempts, the best one last: of those that hold the cheapest, else the fastest.
    """
    hunt = _Hunt(target, price, measure)
    hunt.by_budget(floor, narrowest, choose)
    if hunt.fast and hunt.slow and hunt.fast.speedup.median > target * LAVISH:
        hunt.by_group(hunt.slow, hunt.fast, possible)
    return sorted(hunt.attempts, key=lambda a: (a.holds(target), -a.price if a.holds(target) else a.speedup.median))


class _Hunt:
    """The attempts so far; of those that hold the one with the largest budget, of the others that with the smallest."""

    def __init__(self, target: float, price: Callable[[Widths], float], measure: Callable[[Widths], Speedup]) -> None:
        self.target, self._price, self._measure = target, price, measure
        self.attempts: list[Attempt] = []
        self.fast: Attempt | None = None
        self.slow: Attempt | None = None

    def by_budget(self, floor: float, narrowest: dict[str, int], choose: Callable[[float], dict[str, int]]) -> None:
        """Correct the budget by what was measured; where none is small enough, try the least widths."""
        share = max(floor, 1 / self.target)
        while len(self.attempts) < ATTEMPTS:
            attempt = self._attempt(share, choose(share))
            if attempt.holds(self.target):
                self.fast = max(self.fast or attempt, attempt, key=lambda a: a.share)
                if attempt.speedup.median <= self.target * LAVISH:
                    return
                share *= attempt.speedup.median / (self.target * sqrt(LAVISH))
            else:
                self.slow = min(self.slow or attempt, attempt, key=lambda a: a.share)
                if share <= floor:
                    last = self._attempt(floor, narrowest)
                    self.fast = last if last.holds(self.target) else None
                    return
                share *= min(attempt.speedup.low / (self.target * MARGIN), 1 / FINE)
            enough, missed = self.fast.share if self.fast else 0.0, self.slow.share if self.slow else 1.0
            if enough and missed / enough < FINE:
                return
            if not enough * FINE < share < missed / FINE:
                share = sqrt(enough * missed) if enough else missed / FINE
            share = max(floor, share)

    def by_group(self, slow: Attempt, fast: Attempt, possible: Callable[[Widths], bool]) -> None:
        """Search by halves where the target is met on the way from the widths of one attempt to those of another."""
        changed = [name for name, width in slow.widths.items() if width != fast.widths[name]]
        changed.sort(key=lambda name: self._price({**slow.widths, name: fast.widths[name]}))
        between = [slow.widths | {name: fast.widths[name] for name in changed[:n]} for n in range(len(changed))]
        low, high = 0, len(changed)
        while steps := [n for n in range(low + 1, high) if possible(between[n])]:
            middle = steps[len(steps) // 2]
            attempt = self._attempt(fast.share, between[middle])
            low, high = (low, middle) if attempt.holds(self.target) else (middle, high)
            if attempt.holds(self.target) and attempt.speedup.median <= self.target * LAVISH:
                return

    def _attempt(self, share: float, widths: dict[str, int]) -> Attempt:
        known = next((a.speedup for a in self.attempts if a.widths == widths), None)
        attempt = Attempt(share, widths, self._price(widths), known or self._measure(widths))
        self.attempts.append(attempt)
        return attempt
