"""Targets that are measured: a speed-up, or milliseconds of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from compressor.budget.allocate import Budget, allowed_widths, narrowest
from compressor.budget.costs.base import CostModel, Widths
from compressor.budget.costs.macs import Macs
from compressor.budget.latency.model import Latency
from compressor.budget.latency.profile import TABLE, fits, measure_table, tables_folder
from compressor.budget.latency.skeleton import AXES, Skeleton
from compressor.budget.latency.weight_cache import BOUNDLESS
from compressor.budget.targets.base import USUAL_ALIGNMENT
from compressor.budget.targets.search import WORTHWHILE, Attempt, Candidates, pursue
from compressor.budget.targets.speed import Speed
from compressor.errors import InputError, MachineError
from compressor.recipe import BenchmarkSection
from compressor.selection.base import Ranking
from compressor.structure import Plan, shrink
from compressor.structure.groups import Groups
from compressor.structure.surgery.silence import silence
from compressor.support.progress import Advance, Journal
from exporters.benchmark import Benchmark, benchmark
from exporters.latency_table import LatencyTable
from exporters.operators import is_here
from exporters.providers import find_provider
from exporters.statistics import Speedup

WHY_NOT = "no-table.txt"
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
MAX_ERROR = 0.05
"""Held-out error from which on a table is not used to choose widths."""

Export = Callable[[nn.Module, Path], None]


def settings_of(section: BenchmarkSection) -> dict[str, Any]:
    """What a latency table depends on, besides the network and the device: the first setting is the one that counts."""
    return {"provider": section.provider, "threads": section.threads, "batch": section.batch_sizes[0]}


def learn_skeleton(model: nn.Module, groups: Groups, section: BenchmarkSection, export: Export) -> Skeleton:
    """The network's file as a function of its widths.

    Raises:
        InputError: there can be no latency table of this network, or with this provider.
    """
    if not find_provider(section.provider).times_operators:
        cure = "give a target in speedup all the same: candidates are measured as a whole"
        raise InputError(f"no operators are timed on {section.provider}", where="benchmark.provider", cure=cure)
    return Skeleton.learn(model, groups, export)


def profile(
    model: nn.Module,
    groups: Groups,
    section: BenchmarkSection,
    given: LatencyTable | None,
    export: Export,
    directory: Path,
    journal: Journal,
    *,
    fresh: bool = False,
) -> None:
    """Write the latency table of a network into a directory, and the network as a function of its widths.

    Where there can be none, the reason is written instead.

    Args:
        model: The network.
        groups: Its channel groups.
        section: How latency is measured.
        given: A table that is there already, perhaps of another device.
        export: Writes a network as an ONNX file.
        directory: Where to write.
        journal: Told how it goes.
        fresh: Measure again what an earlier run has measured.

    Raises:
        InputError: the given table is of other settings, or of another network.
    """
    settings = settings_of(section)
    try:
        skeleton = learn_skeleton(model, groups, section, export)
    except InputError as error:
        journal.say(f"no latency table: {error.problem}; MACs stand in for milliseconds until they are measured")
        (directory / WHY_NOT).write_text(error.problem)
        return
    if given is None:
        with journal.bar("profile") as advance:
            given = measure_table(
                skeleton,
                groups,
                settings,
                tables_folder(),
                fresh=fresh,
                progress=advance,
                say=journal.say,
            )
    elif problem := fits(given, settings, groups):
        cure = "measure it again, with `compressor profile RECIPE --kit DIR` for another device"
        raise InputError(problem, where=str(section.table), cure=cure)
    given.save(directory / TABLE)
    skeleton.save(directory)


def read_cost(directory: Path, model: nn.Module, groups: Groups) -> CostModel:
    """The cost model that `profile` wrote; multiply-adds where there is no table."""
    if not (directory / AXES).exists():
        return Macs(model, groups)
    return Latency(LatencyTable.load(directory / TABLE), Skeleton.load(directory), groups)


@dataclass(frozen=True)
class Chase:
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

    def speedup(self, kind: str, value: float) -> float:
        """The speed-up that a target amounts to.

        Raises:
            InputError: the dense network is as fast already.
        """
        if kind == "speedup":
            return value
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
            return pursue(target, self._floor(least), least, _Plans(self, groups, rankings, advance))

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


class _Plans(Candidates):
    """Choices of widths of a network, with what is known of each."""

    def __init__(self, chase: Chase, groups: Groups, rankings: Mapping[str, Ranking], advance: Advance) -> None:
        self.chase, self.groups, self.rankings, self.cost = chase, groups, rankings, chase.cost
        self.advance, self.count = advance, 0
        self.measured: dict[tuple[int, ...], Benchmark] = {}
        self.allowed = {g.name: allowed_widths(g, rankings[g.name], chase.multiple_of) for g in groups}

    def choose(self, share: float) -> dict[str, int]:
        return Budget(self.cost, share, self.chase.multiple_of).widths(self.groups, self.rankings)

    def price(self, widths: Widths) -> float:
        return sum(self.rankings[name].error[width] for name, width in widths.items())

    def predict(self, widths: Widths) -> float:
        return self.cost.total(widths) / self.cost.dense

    def is_possible(self, widths: Widths) -> bool:
        return self.groups.may_vanish([name for name, width in widths.items() if not width])

    def measure(self, widths: Widths) -> Speedup:
        self.advance(self.count, max(USUAL_ATTEMPTS, self.count + 1))
        found, known = self._found(widths)
        self.count += 1
        again = " once more" if known else ""
        span = f"{found.low:.2f} to {found.high:.2f}"
        how = "measured" if self.chase.is_here else "by the table"
        predicted = f"predicted {1 / self.predict(widths):.2f}x, " if isinstance(self.cost, Latency) else ""
        self.chase.journal.say(
            f"plan: {found.median:.2f}x ({span}) {how}{again}; {predicted}price {self.price(widths):.4g}"
        )
        return found

    def _found(self, widths: Widths) -> tuple[Speedup, bool]:
        if not self.chase.is_here:
            ratio = 1 / self.predict(widths)
            return Speedup(ratio, ratio, ratio), False
        key = tuple(widths[group.name] for group in self.groups)
        plan = Plan.of(self.groups, {name: self.rankings[name].order[:width] for name, width in widths.items()})
        now, before = self.chase.measure(plan), self.measured.get(key)
        both = before.pooled(now) if before else now
        for _ in range(MAX_REPEATS):
            if both.doubt is None:
                break
            both = both.pooled(self.chase.measure(plan))
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
        f"nine of ten networks are predicted within {cost.error:.1%}"
    )


def summary(chase: Chase, groups: Groups, target: float, attempts: list[Attempt]) -> Speed:
    """What the report tells about the way to the target."""
    best, cost = attempts[-1], chase.cost
    speed = Speed(
        target=target,
        reached=best.holds(target),
        measured=chase.is_here,
        attempts=attempts,
        multiple_of=chase.multiple_of,
        doubt=chase.table_doubt,
    )
    if not isinstance(cost, Latency):
        return speed
    return replace(
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
