"""Rules against an earlier accepted report: what was reached once must not be lost again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.errors import InputError
from compressor.recipe import BaselineSection
from compressor.report.rules import NO_LABELS, ROUNDING, at_most, unjudged
from compressor.report.schema import Benchmark, Report, Rule

MACHINE = ("cpu", "cores", "usable_cores", "cpu_quota", "governor", "onnxruntime")


def load_baseline(path: Path) -> Report:
    """Read an earlier report.

    Args:
        path: A report.json, or the run directory that holds it.

    Raises:
        InputError: it is no report, or was itself not accepted.
    """
    path = path / "report.json" if path.is_dir() else path
    report = Report.load(path)
    if not report.accepted:
        raise InputError("was not accepted itself", where=str(path), cure="give the report of an accepted run")
    return report


def compare(margins: BaselineSection, report: Report, baseline: Report) -> list[Rule]:
    """Judge a report by an earlier one; a rule whose margin is None is not judged."""
    rules = []
    if margins.accuracy_drop is not None:
        rules.append(_accuracy(margins.accuracy_drop, report, baseline))
    if margins.slowdown is not None:
        rules.append(_latency(margins.slowdown, report, baseline))
    return rules


def _accuracy(margin: float, report: Report, baseline: Report) -> Rule:
    name, now, then = "baseline.accuracy_drop", report.main(report.compact), baseline.main(baseline.compact)
    if now is None or then is None:
        return unjudged(name, margin, NO_LABELS)
    if differences := _other_data(report, baseline, ("source", "args", "normalize")):
        return unjudged(name, margin, f"the baseline was judged on other data ({differences})")
    if (report.task, report.quality.metric) != (baseline.task, baseline.quality.metric):
        return unjudged(name, margin, f"the baseline was judged by {baseline.quality.label} ({baseline.task})")
    lost, verb = (then - now, "lost") if report.quality.higher_is_better else (now - then, "gained")
    text, moved = f"{report.quality.label} {verb} since the baseline", _other_data(report, baseline, ("root",))
    return at_most(name, margin, lost, f"{text} ({moved})" if moved else text, rounding=ROUNDING)


def _latency(margin: float, report: Report, baseline: Report) -> Rule:
    """Compare medians at the first batch size.

    Where both runs began with the same dense network, its own change between the two measurements, which is one of the
    machine, is taken out.
    """
    name, now, then = "baseline.slowdown", report.benchmarks[0], baseline.benchmarks[0]
    differences = _differences(report, baseline)
    if differences:
        cure = "measure the baseline again, or set accept.baseline.slowdown: null"
        return unjudged(name, margin, f"the baseline was measured otherwise ({differences}); {cure}")
    ratio, text = now.compact.p50_ms / then.compact.p50_ms, "median latency gained since the baseline"
    if (report.dense.params, report.dense.macs) == (baseline.dense.params, baseline.dense.macs):
        ratio, text = ratio * _dense(then) / _dense(now), f"{text}, relative to that of the dense network"
    return at_most(name, margin, ratio - 1, f"{text} ({now.setting})")


def _other_data(report: Report, baseline: Report, keys: Sequence[str]) -> str:
    """How the data sections of both recipes differ in some keys, in words."""
    then, now = (_section(found, "data") for found in (baseline, report))
    found = {key: (then.get(key), now.get(key)) for key in keys}
    return "; ".join(f"data.{key}: {a} then, {b} now" for key, (a, b) in found.items() if a != b)


def _section(report: Report, name: str) -> dict[str, Any]:
    found = report.recipe.get(name)
    return found if isinstance(found, dict) else {}


def _dense(benchmark: Benchmark) -> float:
    return next(iter(benchmark.models.values())).p50_ms


def _differences(report: Report, baseline: Report) -> str:
    """How the two were measured differently, in words; empty where they can be compared."""
    now, then = report.benchmarks[0], baseline.benchmarks[0]
    found = {key: (baseline.environment.get(key), report.environment.get(key)) for key in MACHINE}
    found["setting"] = (then.setting, now.setting)
    return "; ".join(f"{key}: {a} then, {b} now" for key, (a, b) in found.items() if a != b)
