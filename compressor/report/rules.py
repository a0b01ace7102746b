"""What a rule of acceptance is, and how one is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from compressor.budget.targets.base import UnjudgedError
from compressor.report.schema import Benchmark, Report, Rule

AT_MOST, AT_LEAST = "≤", "≥"
ROUNDING = 1e-9
"""Accuracies are counts divided by the same number: a drop that equals its bound must not fail by rounding."""
NO_LABELS = "the data has no labelled validation images"
NOT_MEASURED = "it was not measured"


class Case(NamedTuple):
    """What is judged: a report, and the earlier one that it is compared with, if any."""

    report: Report
    earlier: Report | None = None

    @property
    def first(self) -> Benchmark:
        """The measurement that rules are about: that at the first batch size."""
        return self.report.benchmarks[0]

    @property
    def before(self) -> Report:
        """The earlier report, for rules that are judged only where there is one."""
        assert self.earlier is not None
        return self.earlier


@dataclass(frozen=True)
class Criterion:
    """A rule of acceptance without its bound: a row of the table of rules.

    Attributes:
        sign: Which side of the bound is right: `≤` or `≥`.
        show: Formats bound and measured value in the rule's unit.
        measure: What is compared with the bound; None where it was not measured.
        meaning: What the two numbers mean.
        tolerance: Share of the bound by which it may be missed.
        rounding: The same as a number.
    """

    sign: str
    show: Callable[[float], str]
    measure: Callable[[Case], float | None]
    meaning: str | Callable[[Case], str]
    tolerance: float = 0.0
    rounding: float = 0.0

    def judge(self, name: str, required: float, case: Case) -> Rule:
        """Judge; a rule that was asked for and cannot be judged has failed."""
        try:
            measured = self.measure(case)
            if measured is None:
                raise UnjudgedError(NOT_MEASURED)
        except UnjudgedError as error:
            text = f"cannot be judged: {error}"
            return Rule(name=name, required=required, measured=None, passed=False, text=text)
        text = self.meaning if isinstance(self.meaning, str) else self.meaning(case)
        return Rule(name=name, required=required, measured=measured, passed=self.holds(measured, required), text=text)

    def holds(self, measured: float, required: float) -> bool:
        """Whether a measured value is on the right side of a bound; one that is no number is on neither."""
        if self.sign == AT_LEAST:
            return measured >= required
        return measured <= required * (1 + self.tolerance) + self.rounding
