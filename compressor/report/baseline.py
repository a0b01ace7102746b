"""Rules against an earlier accepted report: what was reached once must not be lost again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.budget.targets.base import UnjudgedError
from compressor.errors import InputError
from compressor.report.rules import NO_LABELS, Case
from compressor.report.schema import Report

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


def accuracy_drop(case: Case) -> float:
    """Return how much worse the main metric has become since the baseline.

    Raises:
        UnjudgedError: one of them is not known, or they were found on different data.
    """
    report, before = case.report, case.before
    now, then = report.main(report.compact), before.main(before.compact)
    if now is None or then is None:
        raise UnjudgedError(NO_LABELS)
    if differences := _other_data(report, before, ("source", "args", "normalize")):
        raise UnjudgedError(f"the baseline was judged on other data ({differences})")
    if (report.task, report.quality.metric) != (before.task, before.quality.metric):
        raise UnjudgedError(f"the baseline was judged by {before.quality.label} ({before.task})")
    return then - now if report.quality.higher_is_better else now - then


def accuracy_meaning(case: Case) -> str:
    """Say what `accuracy_drop` is, and where the data has moved since."""
    quality = case.report.quality
    verb = "lost" if quality.higher_is_better else "gained"
    text, moved = f"{quality.label} {verb} since the baseline", _other_data(case.report, case.before, ("root",))
    return f"{text} ({moved})" if moved else text


def slowdown(case: Case) -> float:
    """Compare medians at the first batch size.

    Where both runs began with the same dense network, its own change between the two measurements, which is one of the
    machine, is taken out.

    Raises:
        UnjudgedError: they were measured differently.
    """
    if differences := _differences(case.report, case.before):
        cure = "measure the baseline again, or set accept.baseline.slowdown: null"
        raise UnjudgedError(f"the baseline was measured otherwise ({differences}); {cure}")
    now, then = case.first, case.before.benchmarks[0]
    ratio = now.after.p50_ms / then.after.p50_ms
    return (ratio * then.dense.p50_ms / now.dense.p50_ms if _same_dense(case) else ratio) - 1


def slowdown_meaning(case: Case) -> str:
    """Say what `slowdown` is."""
    relative = ", relative to that of the dense network" if _same_dense(case) else ""
    return f"median latency gained since the baseline{relative} ({case.first.setting})"


def _same_dense(case: Case) -> bool:
    now, then = case.report.dense, case.before.dense
    return (now.params, now.macs) == (then.params, then.macs)


def _other_data(report: Report, baseline: Report, keys: Sequence[str]) -> str:
    """How the data sections of both recipes differ in some keys, in words."""
    then, now = (_section(found, "data") for found in (baseline, report))
    found = {key: (then.get(key), now.get(key)) for key in keys}
    return "; ".join(f"data.{key}: {a} then, {b} now" for key, (a, b) in found.items() if a != b)


def _section(report: Report, name: str) -> dict[str, Any]:
    found = report.recipe.get(name)
    return found if isinstance(found, dict) else {}


def _differences(report: Report, baseline: Report) -> str:
    """How the two were measured differently, in words; empty where they can be compared."""
    now, then = report.benchmarks[0], baseline.benchmarks[0]
    found = {key: (baseline.environment.get(key), report.environment.get(key)) for key in MACHINE}
    found["setting"] = (then.setting, now.setting)
    return "; ".join(f"{key}: {a} then, {b} now" for key, (a, b) in found.items() if a != b)
