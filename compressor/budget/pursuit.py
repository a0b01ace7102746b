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
    choose: Callable[[float], tuple[dict[str, int], float]],
    measure: Callable[[Widths], Speedup],
) -> list[Attempt]:
    """Find widths whose measured speed-up is the target or little more.

    Args:
        target: The speed-up that is wanted.
        floor: The least share of the dense cost that widths can have.
        choose: Gives widths for a share of the dense cost, and their price.
        measure: Measures widths.

    Returns:
        All attempts, the best one last: of those that hold the cheapest, else the fastest.
    """
    attempts: list[Attempt] = []
    enough, missed, share = 0.0, 1.0, max(floor, 1 / target)
    while len(attempts) < ATTEMPTS:
        widths, price = choose(share)
        known = next((a for a in attempts if a.widths == widths), None)
        attempt = Attempt(share, widths, price, known.speedup if known else measure(widths))
        attempts.append(attempt)
        if attempt.holds(target):
            enough = max(enough, share)
            if attempt.speedup.median <= target * LAVISH:
                break
            following = share * attempt.speedup.median / (target * sqrt(LAVISH))
        else:
            missed = min(missed, share)
            if share <= floor:
                break
            following = share * min(attempt.speedup.low / (target * MARGIN), 1 / FINE)
        if enough and missed / enough < FINE:
            break
        if not enough * FINE < following < missed / FINE:
            following = sqrt(enough * missed) if enough else missed / FINE
        share = max(floor, following)
    return sorted(attempts, key=lambda a: (a.holds(target), -a.price if a.holds(target) else a.speedup.median))
