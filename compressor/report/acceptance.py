"""Judging a run: every rule with what it required and what was measured."""

from __future__ import annotations

from collections.abc import Callable

from compressor.budget.targets.base import Target as Wanted
from compressor.budget.targets.base import UnjudgedError, make_target
from compressor.recipe import AcceptSection, Target
from compressor.report import baseline
from compressor.report.rules import (
    AT_LEAST,
    AT_MOST,
    NO_LABELS,
    ROUNDING,
    Case,
    Criterion,
)
from compressor.report.schema import Report, Rule
from compressor.support.units import count, lost, megabytes, milliseconds, percent, times
from exporters.statistics import doubt

MEGABYTE = 1e6


def judge(accept: AcceptSection, target: Target, report: Report, earlier: Report | None = None) -> list[Rule]:
    """Judge a report.

    Args:
        accept: The rules that are asked for; None means not asked.
        target: The budget, which is always judged.
        report: The measurements; its own verdicts are ignored.
        earlier: An earlier report; with one, the rules of `accept.baseline` are judged as well.

    Returns:
        The rules in the order of the table. One that was asked for and cannot be judged has failed.
    """
    case, wanted = Case(report, earlier), make_target(target.asked)
    rules = [target_criterion(wanted).judge("target", wanted.value, case)]
    sections = {"": accept, "baseline": accept.baseline if earlier else None}
    for key, criterion in CRITERIA.items():
        section, _, name = key.rpartition(".")
        required = getattr(sections[section], name, None)
        if required is not None:
            rules.append(criterion.judge(key, required, case))
    return rules


def target_criterion(target: Wanted) -> Criterion:
    """Return the rule that a target is."""
    return Criterion(
        target.sign,
        target.format,
        lambda case: target.measure(case.report),
        lambda case: target.meaning(case.report),
        target.tolerance,
    )


def _accuracy_drop(case: Case) -> float:
    dense, compact = case.report.main(case.report.dense), case.report.main(case.report.compact)
    if dense is None or compact is None:
        raise UnjudgedError(NO_LABELS)
    return dense - compact if case.report.quality.higher_is_better else compact - dense


def _accuracy_meaning(case: Case) -> str:
    quality = case.report.quality
    if quality.higher_is_better:
        return f"{quality.label} lost, dense minus compact"
    return f"{quality.label} gained, compact minus dense"


def _speedup(case: Case) -> float:
    _check_control(case)
    return case.first.speedup.low


def _speedup_meaning(case: Case) -> str:
    median = f"median {case.first.speedup.median:.2f}"
    return f"lower end of the 95 % interval of the measured speed-up ({case.first.setting}; {median})"


def _check_control(case: Case) -> None:
    """Refuse latencies beside a control (A/A) that is too far off."""
    if case.first.aa and (reason := doubt(case.first.aa.low, case.first.aa.high)):
        raise UnjudgedError(reason)


def _size(case: Case) -> float | None:
    size = case.report.files[case.report.delivered].bytes
    return None if size is None else size / MEGABYTE


def _p99(case: Case) -> float:
    if case.first.calls_per_sample > 1:
        cure = "run again with accept.p99_ms in the recipe: then single calls are measured"
        raise UnjudgedError(f"samples are means of {case.first.calls_per_sample} calls; {cure}")
    return case.first.after.wall_p99_ms or case.first.after.p99_ms


def _peak(case: Case) -> float | None:
    peak = case.first.after.peak_bytes
    return None if peak is None else peak / MEGABYTE


def _first(text: str) -> Callable[[Case], str]:
    """Return a meaning that names the setting of the first benchmark."""
    return lambda case: f"{text} ({case.first.setting})"


CRITERIA: dict[str, Criterion] = {
    "accuracy_drop": Criterion(AT_MOST, lost, _accuracy_drop, _accuracy_meaning, rounding=ROUNDING),
    "speedup": Criterion(AT_LEAST, times, _speedup, _speedup_meaning),
    "parity": Criterion(
        AT_MOST,
        lambda value: f"{value:.1e}",
        lambda case: case.report.parity.max_rel,
        "largest difference between the ONNX file and PyTorch, relative to the largest output",
    ),
    "params": Criterion(AT_MOST, count, lambda case: case.report.compact.params, "parameters of the compact network"),
    "size_mb": Criterion(AT_MOST, megabytes, _size, "size of the compact ONNX file"),
    "p99_ms": Criterion(AT_MOST, milliseconds, _p99, _first("99th percentile of the latency by the wall clock")),
    "peak_mb": Criterion(AT_MOST, megabytes, _peak, _first("peak memory of the compact network")),
    "baseline.accuracy_drop": Criterion(
        AT_MOST, lost, baseline.accuracy_drop, baseline.accuracy_meaning, rounding=ROUNDING
    ),
    "baseline.slowdown": Criterion(AT_MOST, percent, baseline.slowdown, baseline.slowdown_meaning),
}
"""All rules but the target by the key of their bound in the recipe, below `accept`."""
