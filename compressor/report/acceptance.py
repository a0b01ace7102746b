"""Judging a run: every rule with what it required and what was measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compressor.budget.targets.base import make_target
from compressor.recipe import AcceptSection, Target
from compressor.report.baseline import compare
from compressor.report.rules import NO_LABELS, ROUNDING, at_most, unjudged
from compressor.report.schema import Report, Rule
from exporters.statistics import doubt

MEGABYTE = 1e6


def judge(accept: AcceptSection, target: Target, report: Report, baseline: Report | None = None) -> list[Rule]:
    """Judge a report.

    Args:
        accept: The rules that are asked for; None means not asked.
        target: The budget, which is always judged.
        report: The measurements; its own verdicts are ignored.
        baseline: An earlier report; with one, the rules of `accept.baseline` are judged as well.

    Returns:
        The rules in a fixed order. One that was asked for and cannot be judged has failed.
    """
    asked = [(rule, getattr(accept, name)) for name, rule in _RULES.items()]
    rules = [_target(target, report), *(rule(required, report) for rule, required in asked if required is not None)]
    return rules + (compare(accept.baseline, report, baseline) if baseline else [])


def _target(target: Target, report: Report) -> Rule:
    (required,) = target.asked.values()
    found = make_target(target.asked).judge(report)
    return Rule(name="target", required=required, measured=found.measured, passed=found.passed, text=found.text)


def _accuracy_drop(required: float, report: Report) -> Rule:
    name, dense, compact = "accuracy_drop", report.main(report.dense), report.main(report.compact)
    if dense is None or compact is None:
        return unjudged(name, required, NO_LABELS)
    label, higher = report.quality.label, report.quality.higher_is_better
    text = f"{label} lost, dense minus compact" if higher else f"{label} gained, compact minus dense"
    return at_most(name, required, dense - compact if higher else compact - dense, text, rounding=ROUNDING)


def _speedup(required: float, report: Report) -> Rule:
    first = report.benchmarks[0]
    if first.aa and (reason := doubt(first.aa.low, first.aa.high)):
        return unjudged("speedup", required, reason)
    text = (
        f"lower end of the 95 % interval of the measured speed-up ({first.setting}; median {first.speedup.median:.2f})"
    )
    low = first.speedup.low
    return Rule(name="speedup", required=required, measured=low, passed=low >= required, text=text)


def _parity(required: float, report: Report) -> Rule:
    text = "largest difference between the ONNX file and PyTorch, relative to the largest output"
    return at_most("parity", required, report.parity.max_rel, text)


def _params(required: int, report: Report) -> Rule:
    return at_most("params", required, report.compact.params, "parameters of the compact network")


def _size(required: float, report: Report) -> Rule:
    size = report.compact.onnx_bytes
    return at_most("size_mb", required, None if size is None else size / MEGABYTE, "size of the compact ONNX file")


def _p99(required: float, report: Report) -> Rule:
    first = report.benchmarks[0]
    if first.calls_per_sample > 1:
        cure = "run again with accept.p99_ms in the recipe: then single calls are measured"
        return unjudged("p99_ms", required, f"samples are means of {first.calls_per_sample} calls; {cure}")
    felt = first.compact.wall_p99_ms or first.compact.p99_ms
    return at_most("p99_ms", required, felt, f"99th percentile of the latency by the wall clock ({first.setting})")


def _peak(required: float, report: Report) -> Rule:
    first = report.benchmarks[0]
    peak = first.compact.peak_bytes
    measured = None if peak is None else peak / MEGABYTE
    return at_most("peak_mb", required, measured, f"peak memory of the compact network ({first.setting})")


_RULES: dict[str, Callable[[Any, Report], Rule]] = {
    "accuracy_drop": _accuracy_drop,
    "speedup": _speedup,
    "parity": _parity,
    "params": _params,
    "size_mb": _size,
    "p99_ms": _p99,
    "peak_mb": _peak,
}
