"""Targets that are measured: a speed-up, or milliseconds of a call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
from torch import nn

from compressor.budget.allocate import Budget, allowed_widths, narrowest
from compressor.budget.costs.base import CostModel, Widths
from compressor.budget.latency.build import Export, read_cost, settings_of
from compressor.budget.latency.model import Latency
from compressor.budget.latency.weight_cache import BOUNDLESS
from compressor.budget.search.bracket import WORTHWHILE, Attempt, Candidates, search_widths
from compressor.budget.search.loss import KLIncrease
from compressor.budget.search.speed import Speed
from compressor.budget.targets.base import USUAL_ALIGNMENT, Problem
from compressor.budget.targets.timed import TimedTarget
from compressor.errors import InputError, MachineError
from compressor.recipe import BenchmarkSection
from compressor.selection.base import Ranking
from compressor.structure import Plan, shrink
from compressor.structure.groups import Groups
from compressor.structure.surgery.silence import silence
from compressor.support.batches import sizes_of
from compressor.support.progress import Advance, Journal
from exporters.benchmark import Benchmark, benchmark
from exporters.operators import is_here
from exporters.statistics import Speedup

CURVES = 5
"""How many groups the report shows the staircase of."""
CANDIDATE_SECONDS, CANDIDATE_PRECISION = 2.0, 0.01
"""How long a candidate is measured against the dense network, and how narrow its interval should be."""
USUAL_ATTEMPTS = 6
"""Measurements that a search takes as a rule, for its bar."""
MAX_REPEATS = 3
"""How often a candidate is measured again before the machine is called too busy to measure anything."""
MAX_NEIGHBOURS = 500
"""How many of the cheapest neighbours of a choice are looked at."""
JUDGING_SECONDS = 60.0
"""CPU time for the loss of choices that cost about the same, at most."""
MAX_VARIANTS = 40
"""Choices of which the loss is measured, at most."""
PRICE_SPREAD = 0.3
"""By how much prices of groups are changed to find them, as a logarithm."""
MAX_ERROR = 0.05
"""Held-out error from which on a table is not used to choose widths."""


@dataclass(frozen=True)
class SpeedupSearch:
    """A target on measured time, and what it takes to meet it.

    Attributes:
        model: The network.
        groups: Its channel groups.
        cost: Milliseconds, or what stands in for them.
        dense: The dense network's file.
        section: How latency is measured.
        given_multiple: What widths are to be multiples of; None leaves that to the device.
        export: Writes a network as an ONNX file.
        journal: Told about every attempt.
        silent: Whether branches that vanish will add nothing.
        table_doubt: Why a latency table was put aside, where one was.
        increase: Gives what measures the loss of widths of some groups; None where training decides about weights.
    """

    model: nn.Module
    groups: Groups
    cost: CostModel
    dense: Path
    section: BenchmarkSection
    given_multiple: int | None
    export: Export
    journal: Journal
    silent: bool = False
    table_doubt: str | None = None
    increase: Callable[[Groups, Mapping[str, Ranking]], KLIncrease] | None = None

    @property
    def multiple_of(self) -> int:
        """What widths are multiples of: the alignment of the device, unless it is given."""
        measured = self.cost.staircase.align if isinstance(self.cost, Latency) else USUAL_ALIGNMENT
        return self.given_multiple or measured

    @property
    def doubt(self) -> str | None:
        """Why the latency table should not choose widths: on the device that it is of, measuring them is better."""
        if not isinstance(self.cost, Latency) or not self.is_here or self.cost.error <= MAX_ERROR:
            return None
        error = f"one in ten of its predictions is off by more than {self.cost.error:.1%}"
        return f"the latency table is not used ({error}): MACs choose widths, which are then measured"

    def speedup_of(self, value: float) -> float:
        """The speed-up that brings a call down to some milliseconds.

        Raises:
            InputError: the dense network is as fast already.
        """
        dense_ms = self._dense_ms()
        if value >= dense_ms:
            problem = f"the dense network takes {dense_ms:.3g} ms already"
            raise InputError(problem, where="compress.target.latency_ms", cure=f"ask for less than {dense_ms:.3g}")
        return dense_ms / value

    def budget(self, target: float) -> Budget:
        """The budget that a speed-up amounts to before anything is measured."""
        least = narrowest(self.groups, self.cost, multiple_of=self.multiple_of)
        return Budget(self.cost, max(1 / target, self._floor(least)), self.multiple_of)

    def attempts(self, target: float, groups: Groups, rankings: Mapping[str, Ranking]) -> list[Attempt]:
        """Choose and measure widths; the best ones come last."""
        least = narrowest(groups, self.cost, multiple_of=self.multiple_of, rankings=rankings)
        with self.journal.bar("plan") as advance:
            plans = _Plans(self, groups, rankings, advance)
            attempts = search_widths(target, self._floor(least), least, plans)
        if attempts[-1].loss is not None:
            found = f"divergence from dense {attempts[-1].loss:.4g} after a refit"
            self.journal.say(f"plan: {found}, the lowest of {plans.judged} choices")
        return attempts

    @cached_property
    def is_here(self) -> bool:
        """Whether the budget is about this device, so that candidates can be measured."""
        return not isinstance(self.cost, Latency) or is_here(self.cost.table.device)

    def _floor(self, least: Widths) -> float:
        return min(1.0, 1.001 * self.cost.total(least) / self.cost.dense)

    def _dense_ms(self) -> float:
        if not self.is_here:
            return self.cost.dense
        return self._benchmark({"dense": self.dense}).models["dense"].p50_ms

    def _benchmark(self, files: Mapping[str, Path]) -> Benchmark:
        seconds = min(CANDIDATE_SECONDS, self.section.seconds)
        return benchmark(
            files, **settings_of(self.section), memory=False, min_seconds=seconds, precision=CANDIDATE_PRECISION
        )

    def measure(self, plan: Plan) -> Benchmark:
        """Measure what a plan leaves against the dense network."""
        with TemporaryDirectory() as directory:
            candidate = Path(directory, "candidate.onnx")
            small = shrink(self.model, plan)
            if self.silent:
                silence(small, plan, self.groups)
            self.export(small, candidate)
            return self._benchmark({"dense": self.dense, "candidate": candidate})


def make_search(problem: Problem) -> SpeedupSearch:
    """Return the search for widths of a network; a table that predicts badly is put aside, and that is told."""
    search = SpeedupSearch(
        problem.model,
        problem.groups,
        read_cost(problem.profiled(), problem.model, problem.groups),
        problem.dense(),
        problem.benchmark,
        problem.given_multiple,
        problem.export,
        problem.journal,
        problem.silent,
        increase=partial(_increase_of, problem) if problem.silent and _is_quick(problem) else None,
    )
    if search.doubt is None:
        return search
    problem.journal.say(f"plan: {search.doubt}")
    return dataclasses.replace(search, cost=problem.cost("macs"), table_doubt=search.doubt)


def _increase_of(problem: Problem, groups: Groups, rankings: Mapping[str, Ranking]) -> KLIncrease:
    """What measures the loss of widths."""
    mixing, seed, task = problem.mixing, problem.seed, problem.task
    return KLIncrease(problem.model, groups, rankings, problem.images(), mixing=mixing, seed=seed, task=task)


def _is_quick(problem: Problem) -> bool:
    """Whether several choices can be refitted on all calibration images: a refit on a part says little about that."""
    return problem.macs * sum(sizes_of(problem.images())) <= TimedTarget.max_refit_macs


class _Plans(Candidates):
    """Choices of widths of a network, with what is known of each."""

    def __init__(
        self, search: SpeedupSearch, groups: Groups, rankings: Mapping[str, Ranking], advance: Advance
    ) -> None:
        self.search, self.groups, self.rankings, self.cost = search, groups, rankings, search.cost
        self.advance, self.count = advance, 0
        self.measured: dict[tuple[int, ...], Benchmark] = {}
        self.allowed = {g.name: allowed_widths(g, rankings[g.name], search.multiple_of) for g in groups}
        self.judged, self.judging = 0, 0.0

    def choose(self, share: float) -> dict[str, int]:
        return Budget(self.cost, share, self.search.multiple_of).widths(self.groups, self.rankings)

    def price(self, widths: Widths) -> float:
        return sum(self.rankings[name].error[width] for name, width in widths.items())

    def predict(self, widths: Widths) -> float:
        return self.cost.total(widths) / self.cost.dense

    def is_possible(self, widths: Widths) -> bool:
        return self.groups.may_vanish([name for name, width in widths.items() if not width])

    @cached_property
    def _increase(self) -> KLIncrease | None:
        search = self.search
        return search.increase(self.groups, self.rankings) if search.increase and search.is_here else None

    def loss(self, widths: Widths) -> float | None:
        if self._increase is None or self.judging > JUDGING_SECONDS:
            return None
        started = process_time()
        found = self._increase(widths)
        self.judging += process_time() - started
        self.judged += 1
        return found

    def variants(self, share: float) -> Iterator[dict[str, int]]:
        rng = np.random.default_rng(0)
        for _ in range(MAX_VARIANTS):
            factors = rng.lognormal(0.0, PRICE_SPREAD, len(self.groups)).tolist()
            ranked = [(group.name, self.rankings[group.name]) for group in self.groups]
            changed = {
                name: Ranking(ranking.order, tuple(factor * error for error in ranking.error))
                for (name, ranking), factor in zip(ranked, factors, strict=True)
            }
            try:
                yield Budget(self.cost, share, self.search.multiple_of).widths(self.groups, changed)
            except InputError:  # the share is just below what the narrowest widths have
                return

    def measure(self, widths: Widths) -> Speedup:
        self.advance(self.count, max(USUAL_ATTEMPTS, self.count + 1))
        found, known = self._found(widths)
        self.count += 1
        again = " once more" if known else ""
        span = f"{found.low:.2f} to {found.high:.2f}"
        how = "measured" if self.search.is_here else "by the table"
        predicted = f"predicted {1 / self.predict(widths):.2f}x, " if isinstance(self.cost, Latency) else ""
        self.search.journal.say(
            f"plan: {found.median:.2f}x ({span}) {how}{again}; {predicted}price {self.price(widths):.4g}"
        )
        return found

    def _found(self, widths: Widths) -> tuple[Speedup, bool]:
        if not self.search.is_here:
            ratio = 1 / self.predict(widths)
            return Speedup(ratio, ratio, ratio), False
        key = tuple(widths[group.name] for group in self.groups)
        plan = Plan.from_rankings(self.groups, self.rankings, widths)
        now, before = self.search.measure(plan), self.measured.get(key)
        both = before.pooled(now) if before else now
        for _ in range(MAX_REPEATS):
            if both.doubt is None:
                break
            both = both.pooled(self.search.measure(plan))
        if both.doubt is not None:
            cure = "run again when less else runs on this machine; finished stages are kept"
            raise MachineError(both.doubt, where="compress.target", cure=cure)
        self.measured[key] = both
        return both.speedups["candidate"], before is not None

    def neighbours(self, widths: Widths, share: float) -> Iterator[dict[str, int]]:
        """One group wider, or one wider and another one narrower."""
        price, limit = self.price(widths), share * self.cost.dense
        wider, narrower = ([*self._steps(widths, step)] for step in (1, -1))
        choices = [dict(widths) | up for up in wider]
        choices += [dict(widths) | up | down for up in wider for down in narrower if up.keys() != down.keys()]
        priced = sorted(((self.price(choice), number) for number, choice in enumerate(choices)))
        for cost, number in priced[:MAX_NEIGHBOURS]:
            if (
                cost < price - WORTHWHILE * abs(price)
                and self.cost.total(choices[number]) <= limit
                and self.is_possible(choices[number])
            ):
                yield choices[number]

    def _steps(self, widths: Widths, step: int) -> Iterator[dict[str, int]]:
        for name, allowed in self.allowed.items():
            place = int(np.searchsorted(allowed, widths[name])) + step
            if 0 <= place < len(allowed):
                yield {name: int(allowed[place])}


def describe(cost: Latency) -> str:
    """In words, what a table says of its device."""
    stairs = cost.staircase
    steps = f"works on {stairs.block} channels at a time" if stairs.block > 1 else "knows no steps in the width"
    slow = f", is slower at widths that are no multiple of {stairs.align}" if stairs.align > 1 else ""
    held = (
        f", keeps about {cost.cache.held / 1e6:.2g} MB of weights in its caches" if cost.cache is not BOUNDLESS else ""
    )
    return (
        f"{cost.dense:.3g} ms for the dense network; the device {steps}{slow}{held}; "
        f"90 % of held-out predictions are within {cost.error:.1%}"
    )


def summary(search: SpeedupSearch, groups: Groups, target: float, attempts: list[Attempt]) -> Speed:
    """What the report tells about the way to the target."""
    best, cost = attempts[-1], search.cost
    speed = Speed(
        target=target,
        reached=best.holds(target),
        measured=search.is_here,
        attempts=attempts,
        multiple_of=search.multiple_of,
        doubt=search.table_doubt,
    )
    if not isinstance(cost, Latency):
        return speed
    return dataclasses.replace(
        speed,
        device=cost.table.device,
        block=cost.staircase.block,
        align=cost.staircase.align,
        error=cost.error,
        dense_ms=cost.dense,
        predicted_ms=cost.total(best.widths),
        layers=cost.by_layer(best.widths),
        curves=_curves(cost, groups),
    )


def _curves(cost: CostModel, groups: Groups) -> dict[str, list[float]]:
    """Milliseconds of the network with one group at each width from 0 up, for the first group of every size."""
    first = {group.size: group for group in reversed(groups)}
    shown = [first[size] for size in sorted(first, reverse=True)[:CURVES]]
    return {g.name: (cost.dense + cost.changes({}, g.name, range(g.size + 1))).tolist() for g in shown}
