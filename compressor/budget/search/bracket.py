"""Widths whose measured speed-up meets the target: a bracket that closes, then the rest of the budget is spent.

Every candidate lies between the slowest choice that is fast enough and the fastest that is not, by budget. What was
measured corrects what the cost model predicts. At the end, single groups are widened, or exchanged for each other, as
long as what is measured still holds the target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import exp, log
from typing import TYPE_CHECKING

from compressor.support.ranges import Count
from exporters.statistics import Speedup

if TYPE_CHECKING:
    from compressor.budget.costs.base import Widths  # brings torch, which reading a report need not wait for

MAX_ATTEMPTS, MAX_SPENDINGS, MAX_CONFIRMATIONS = 10, 5, 3
"""How many choices are measured on the way to the target, to spend what is left, and once more before one is taken."""
MAX_JUDGED = 3
"""Attempts that hold of which the loss is measured."""
MAX_REFINEMENTS = 3
"""Choices with a lower loss that are timed, before the search is content with what it has."""
MARGIN, AIM, LAVISH = 1.004, 1.015, 1.03
"""The lower end of an interval is to lie above the target by the first; a median is aimed at the second; one above it
by the third is too much."""
FINE = 1.004
"""Budgets that differ by less than this are the same."""
FLATTEST, STEEPEST = 0.25, 2.0
"""Bounds of what is taken for granted of the speed-up that a smaller budget brings, both as logarithms."""
WORTHWHILE = 0.02
"""Share of the price that another choice must save to be worth a measurement."""
INNER = 0.1
"""How far a candidate keeps from the ends of the bracket, as a share of it."""


@dataclass(frozen=True)
class Attempt:
    """A choice of widths that was measured.

    Attributes:
        share: The budget that it was chosen for, as a share of the dense cost.
        price: What the widths cost in quality.
        speedup: As measured.
        widths: Kept units by the name of the group; reports of version 0.1.0 have none.
        loss: How far the refitted network is from the dense one on held-out calibration images; None where prices were
            enough, or there was no time.
    """

    share: float
    price: float
    speedup: Speedup
    widths: dict[str, Count] = field(default_factory=dict)
    loss: float | None = None

    def holds(self, target: float) -> bool:
        """Whether the speed-up is at least the target, for certain."""
        return self.speedup.low >= target * MARGIN

    def is_lavish(self, target: float) -> bool:
        """Whether it is clearly faster than was asked for."""
        return self.speedup.median > target * LAVISH


class Candidates(ABC):
    """What the search needs to know of a network and a device."""

    @abstractmethod
    def choose(self, share: float) -> dict[str, int]:
        """The best widths for a share of the dense cost."""

    @abstractmethod
    def price(self, widths: Widths) -> float:
        """What widths cost in quality."""

    @abstractmethod
    def measure(self, widths: Widths) -> Speedup:
        """Measure widths; of those that were measured before, all measurements count together."""

    @abstractmethod
    def predict(self, widths: Widths) -> float:
        """The share of the dense cost that widths are expected to have."""

    def is_possible(self, widths: Widths) -> bool:
        """Whether a network can have widths that were put together from two choices."""
        return True

    def loss(self, widths: Widths) -> float | None:
        """How far the refitted network is from the dense one; None where nothing tells, or there is no more time."""
        return None

    def variants(self, share: float) -> Iterable[dict[str, int]]:
        """Choices for a share of the dense cost that would be the best ones if prices were a little different."""
        return ()

    def neighbours(self, widths: Widths, share: float) -> Iterable[dict[str, int]]:
        """Choices next to some widths that cost no more than a share, those with the lowest price first."""
        return ()


def search_widths(target: float, floor: float, narrowest: dict[str, int], candidates: Candidates) -> list[Attempt]:
    """Find widths whose measured speed-up is the target or little more.

    Args:
        target: The speed-up that is wanted.
        floor: The least share of the dense cost that widths can have.
        narrowest: The least widths, which decide whether the target is out of reach.
        candidates: Chooses, prices and measures widths.

    Returns:
        All attempts, the best one last: of those that hold the cheapest, else the fastest.
    """
    bracket = _Bracket(target, candidates)
    bracket.by_budget(floor, narrowest)
    if bracket.fast and bracket.slow and bracket.fast.is_lavish(target):
        bracket.by_group(bracket.slow, bracket.fast)
    bracket.spend()
    bracket.refine()
    bracket.confirm()
    best = bracket.best
    others = [attempt for attempt in bracket.attempts if attempt is not best]
    others.sort(key=lambda a: (a.holds(target), -a.price if a.holds(target) else a.speedup.median))
    return others if best is None else [*others, best]


class _Bracket:
    """The attempts so far; of those that hold the one with the largest budget, of the others that with the smallest."""

    def __init__(self, target: float, candidates: Candidates) -> None:
        self.target, self.candidates = target, candidates
        self.attempts: list[Attempt] = []
        self.fast: Attempt | None = None
        self.slow: Attempt | None = None

    @property
    def best(self) -> Attempt | None:
        """The attempt with the lowest loss that holds, or where no loss is known, the cheapest."""
        holding = [a for a in self.attempts if a.holds(self.target)]
        judged = [(a.loss, number) for number, a in enumerate(holding) if a.loss is not None]
        return holding[min(judged)[1]] if judged else min(holding, key=lambda a: a.price, default=None)

    def by_budget(self, floor: float, narrowest: dict[str, int]) -> None:
        """Close the bracket; where no budget is small enough, try the least widths."""
        share = max(floor, 1 / (self.target * AIM))
        while len(self.attempts) < MAX_ATTEMPTS:
            attempt = self._attempt(share, self.candidates.choose(share))
            if attempt.holds(self.target):
                self.fast = max(self.fast or attempt, attempt, key=lambda a: a.share)
                if not attempt.is_lavish(self.target):
                    return
            else:
                self.slow = min(self.slow or attempt, attempt, key=lambda a: a.share)
                if share <= floor:
                    last = self._attempt(floor, narrowest)
                    self.fast = last if last.holds(self.target) else self.fast
                    return
            if (found := self._between(floor)) is None:
                return
            share = found

    def _between(self, floor: float) -> float | None:
        """The budget to try next: where a line through the ends of the bracket meets the target; none if it is closed.

        Shares and speed-ups are drawn as logarithms, so that the line is right where one is the other's inverse.
        """
        slow, aim = self.slow, log(self.target * AIM)
        upper, above = (log(slow.share), log(slow.speedup.median)) if slow else (0.0, 0.0)
        if self.fast is None:
            gain = min(STEEPEST, max(FLATTEST, -above / upper))
            return max(floor, exp(upper - max((aim - above) / gain, log(FINE))))
        lower, below = log(self.fast.share), log(self.fast.speedup.median)
        if upper - lower < log(FINE):
            return None
        part = (below - aim) / (below - above) if below > max(above, aim) else INNER
        return exp(lower + (upper - lower) * min(1 - INNER, max(INNER, part)))

    def by_group(self, slow: Attempt, fast: Attempt) -> None:
        """Search by halves where the target is met on the way from the widths of one attempt to those of another."""
        changed = [name for name, width in slow.widths.items() if width != fast.widths[name]]
        changed.sort(key=lambda name: self.candidates.price({**slow.widths, name: fast.widths[name]}))
        between = [slow.widths | {name: fast.widths[name] for name in changed[:n]} for n in range(len(changed))]
        low, high = 0, len(changed)
        while steps := [n for n in range(low + 1, high) if self.candidates.is_possible(between[n])]:
            middle = steps[len(steps) // 2]
            attempt = self._attempt(fast.share, between[middle])
            low, high = (low, middle) if attempt.holds(self.target) else (middle, high)
            if attempt.holds(self.target) and not attempt.is_lavish(self.target):
                return

    def spend(self) -> None:
        """Take neighbours of the best choice that are cheaper and still hold, as long as there are any."""
        for _ in range(MAX_SPENDINGS):
            best = self.best
            if best is None:
                return
            widths = next(self._cheaper(best), None)
            if widths is None:
                return
            self._attempt(best.share, widths)

    def _cheaper(self, best: Attempt) -> Iterator[dict[str, int]]:
        """Choices that were not tried yet, are cheaper, and take up to as much time as is left: as it is predicted."""
        known = [attempt.widths for attempt in self.attempts]
        left = best.speedup.low / (self.target * MARGIN)
        low, high = self.fast.share if self.fast else 1.0, self.slow.share if self.slow else 1.0
        shares = [share for share in (best.share * left, best.share * left**0.5) if low * FINE < share < high / FINE]
        limit = best.price - WORTHWHILE * abs(best.price)
        anew = (self.candidates.choose(share) for share in shares)
        yield from (w for w in anew if w not in known and self.candidates.price(w) < limit)
        room = self.candidates.predict(best.widths) * left
        yield from (w for w in self.candidates.neighbours(best.widths, room) if w not in known)

    def refine(self) -> None:
        """Let the measured loss choose among attempts that hold, and among choices that cost about as much.

        Prices of groups are added as if each were cut alone; of choices of the same price, some are much better.
        """
        holding = sorted((a for a in self.attempts if a.holds(self.target)), key=lambda a: a.price)
        for attempt in holding[:MAX_JUDGED]:
            loss = self.candidates.loss(attempt.widths)
            if loss is None:
                return
            self.attempts = [replace(a, loss=loss) if a.widths == attempt.widths else a for a in self.attempts]
        best = self.best
        if best is None or best.loss is None:
            return
        limit = best.loss * (1 - WORTHWHILE)
        for loss, widths in self._judged(best, limit)[:MAX_REFINEMENTS]:
            if self._attempt(best.share, widths, loss).holds(self.target):
                return

    def _judged(self, best: Attempt, limit: float) -> list[tuple[float, dict[str, int]]]:
        """Choices that fit into the time of the target, with losses below a limit, the best first."""
        room = self.candidates.predict(best.widths) * best.speedup.low / (self.target * MARGIN)
        known, found = [attempt.widths for attempt in self.attempts], list[tuple[float, dict[str, int]]]()
        for widths in self.candidates.variants(room):
            if widths not in known:
                known.append(widths)
                loss = self.candidates.loss(widths)
                if loss is None:
                    break
                found.append((loss, widths))
        return sorted((entry for entry in found if entry[0] < limit), key=lambda entry: entry[0])

    def confirm(self) -> None:
        """Measure the best choice again: of several that hold, noise makes some look better than they are."""
        for _ in range(MAX_CONFIRMATIONS):
            best = self.best
            if best is None:
                return
            again = self.candidates.measure(best.widths)
            self.attempts = [replace(a, speedup=again) if a.widths == best.widths else a for a in self.attempts]
            if self.best is not None and self.best.widths == best.widths:
                return

    def _attempt(self, share: float, widths: dict[str, int], loss: float | None = None) -> Attempt:
        known = next((a.speedup for a in self.attempts if a.widths == widths), None)
        price, speedup = self.candidates.price(widths), known or self.candidates.measure(widths)
        attempt = Attempt(share, price, speedup, widths, loss)
        self.attempts.append(attempt)
        return attempt
