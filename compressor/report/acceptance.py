"""Judging a run: every rule with what it required and what was measured."""

from __future__ import annotations

from collections.abc import Callable

from compressor.recipe import AcceptSection, Target
from compressor.report import baseline
from compressor.report.rules import (
    AT_LEAST,
    AT_MOST,
    NO_LABELS,
    ROUNDING,
    TARGET_TOLERANCE,
    Case,
    Criterion,
    UnjudgedError,
)
from compressor.report.schema import DENSE, Report, Rule
from compressor.report.units import count, lost, megabytes, milliseconds, percent, times
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
    sections = {"target": target, "": accept, "baseline": accept.baseline if earlier else None}
    rules = []
    for key, criterion in CRITERIA.items():
        section, _, name = key.rpartition(".")
        required = getattr(sections[section], name, None)
        if required is not None:
            rules.append(criterion.judge("target" if section == "target" else key, required, Case(report, earlier)))
    return rules


def _kept(kind: str) -> Callable[[Case], float | None]:
    """Return the measure of a share that is kept of `params` or `macs`."""

    def measure(case: Case) -> float:
        report = case.report
        delivered: float = getattr(report.network(report.delivered), kind)
        return delivered / float(getattr(report.dense, kind))

    return measure


def _kept_bytes(case: Case) -> float | None:
    files = case.report.files
    dense, delivered = files[DENSE].bytes, files[case.report.delivered].bytes
    return delivered / dense if dense and delivered else None


def _target_speedup(case: Case) -> float:
    speed = case.report.speed
    if speed is None or speed.measured:
        return _speedup(case)
    assert speed.predicted_ms is not None and speed.dense_ms is not None
    return speed.dense_ms / speed.predicted_ms


def _target_ms(case: Case) -> float | None:
    speed = case.report.speed
    if speed is None or speed.measured:
        _check_control(case)
        return case.first.after.p50_ms
    return speed.predicted_ms


def _predicted_or(meaning: Callable[[Case], str]) -> Callable[[Case], str]:
    """Return a meaning that says so where a target is about another device, of which nothing here can be measured."""

    def tell(case: Case) -> str:
        speed = case.report.speed
        if speed is None or speed.measured:
            return meaning(case)
        return f"by the latency table of another device ({(speed.device or {}).get('cpu')}), not measured here"

    return tell


def _accuracy_drop(case: Case) -> float:
    dense, compact = case.report.dense.accuracy, case.report.compact.accuracy
    if dense is None or compact is None:
        raise UnjudgedError(NO_LABELS)
    return dense - compact


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


def _share(of: str) -> str:
    return f"share of {of} that is kept, at most 1 % above the target"


CRITERIA: dict[str, Criterion] = {
    "target.macs": Criterion(AT_MOST, percent, _kept("macs"), _share("macs"), TARGET_TOLERANCE),
    "target.params": Criterion(AT_MOST, percent, _kept("params"), _share("params"), TARGET_TOLERANCE),
    "target.size": Criterion(AT_MOST, percent, _kept_bytes, _share("the ONNX file"), TARGET_TOLERANCE),
    "target.speedup": Criterion(AT_LEAST, times, _target_speedup, _predicted_or(_speedup_meaning)),
    "target.latency_ms": Criterion(
        AT_MOST, milliseconds, _target_ms, _predicted_or(_first("median milliseconds of a call"))
    ),
    "target.loss": Criterion(
        AT_MOST,
        lambda value: f"{value:.4g}",
        lambda case: case.report.rise,
        "rise of the loss before fine-tuning: KL divergence to the dense network on held-out images",
    ),
    "accuracy_drop": Criterion(AT_MOST, lost, _accuracy_drop, "top-1 lost, dense minus compact", rounding=ROUNDING),
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
"""All rules by the key of their bound in the recipe: below `accept`, or below `compress` for targets."""
