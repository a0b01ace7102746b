"""What is measured on a device in the end: a speed-up over the dense network, or the time of a call."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from compressor.budget.targets.base import Choice, Problem, Target, UnjudgedError
from compressor.support.units import milliseconds, times

if TYPE_CHECKING:
    from compressor.budget.allocate import Budget
    from compressor.budget.search.speed import Speed
    from compressor.budget.search.speedup import SpeedupSearch
    from compressor.report import Report
    from compressor.report.schema import Benchmark
    from compressor.selection.base import Ranking
    from compressor.structure.groups import Groups


class TimedTarget(Target):
    """A target that is met by measured candidates."""

    reads = ("table", "dense", "refit")
    exports = 8
    refits = 8
    max_refit_macs = 1.5e11

    @abstractmethod
    def speedup(self, search: SpeedupSearch) -> float:
        """The speed-up that the target amounts to."""

    def budget(self, problem: Problem) -> Budget:
        search = self._search(problem)
        return search.budget(self.speedup(search))

    def choose(self, problem: Problem, groups: Groups, rankings: Mapping[str, Ranking]) -> Choice:
        from compressor.budget.search.speedup import summary

        search = self._search(problem)
        target = self.speedup(search)
        attempts = search.attempts(target, groups, rankings)
        return Choice(attempts[-1].widths, {"speed": summary(search, groups, target, attempts)})

    def _search(self, problem: Problem) -> SpeedupSearch:
        from compressor.budget.search.speedup import make_search

        return make_search(problem)

    def measure(self, report: Report) -> float | None:
        """Predicted where the target is about another device: what is measured here says nothing about that one."""
        from exporters.statistics import doubt

        first, speed = report.benchmarks[0], report.speed
        if speed is not None and not speed.measured:
            return self.predicted(speed)
        if first.aa and (reason := doubt(first.aa.low, first.aa.high)):
            raise UnjudgedError(reason)
        return self.measured(first)

    def meaning(self, report: Report) -> str:
        speed = report.speed
        if speed is not None and not speed.measured:
            return f"by the latency table of another device ({(speed.device or {}).get('cpu')}), not measured here"
        return self.words(report.benchmarks[0])

    @abstractmethod
    def predicted(self, speed: Speed) -> float:
        """What a latency table says of the chosen widths."""

    @abstractmethod
    def measured(self, benchmark: Benchmark) -> float:
        """What a measurement that can be trusted says."""

    @abstractmethod
    def words(self, benchmark: Benchmark) -> str:
        """What is measured."""


class SpeedupTarget(TimedTarget):
    """How many times as fast as the dense network the compact one is."""

    name = "speedup"
    summary = "How many times as fast as the dense network; measured with ONNX Runtime."
    above = 1.0
    sign = "≥"

    @property
    def share(self) -> float:
        return 1 / self.value

    def speedup(self, search: SpeedupSearch) -> float:
        return self.value

    def predicted(self, speed: Speed) -> float:
        assert speed.predicted_ms is not None and speed.dense_ms is not None
        return speed.dense_ms / speed.predicted_ms

    def measured(self, benchmark: Benchmark) -> float:
        return benchmark.speedup.low

    def words(self, benchmark: Benchmark) -> str:
        median = f"median {benchmark.speedup.median:.2f}"
        return f"lower end of the 95 % interval of the measured speed-up ({benchmark.setting}; {median})"

    def format(self, value: float) -> str:
        return times(value)


class LatencyTarget(TimedTarget):
    """Milliseconds of a call."""

    name = "latency_ms"
    summary = "Median milliseconds per call at the first batch size; measured with ONNX Runtime."

    def speedup(self, search: SpeedupSearch) -> float:
        return search.speedup_of(self.value)

    def predicted(self, speed: Speed) -> float:
        assert speed.predicted_ms is not None
        return speed.predicted_ms

    def measured(self, benchmark: Benchmark) -> float:
        return benchmark.after.p50_ms

    def words(self, benchmark: Benchmark) -> str:
        return f"median milliseconds of a call ({benchmark.setting})"

    def format(self, value: float) -> str:
        return milliseconds(value)
