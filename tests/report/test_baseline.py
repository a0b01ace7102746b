"""Rules against an earlier report."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import InputError
from compressor.recipe import AcceptSection, BaselineSection, Target
from compressor.report.acceptance import judge
from compressor.report.baseline import load_baseline
from compressor.report.schema import Benchmark, Network, Report, Rule
from tests.report.examples import ENVIRONMENT, benchmark, report


def rule(name: str, now: Report, then: Report, **margins: float | None) -> Rule:
    """Judge by the given margins and return one of the rules."""
    accept = AcceptSection(parity=None, baseline=BaselineSection(**margins))  # type: ignore[arg-type]
    return {rule.name: rule for rule in judge(accept, Target(macs=0.5), now, then)}[f"baseline.{name}"]


def with_accuracy(accuracy: float | None) -> Report:
    return report(compact=Network(params=141002, macs=20167000, accuracy=accuracy, onnx_bytes=590233))


def with_latency(first: float, second: float, **changes: object) -> Report:
    """A report with these factors on the latencies of `benchmark()`."""
    measured: Benchmark = benchmark()
    for latency, factor in zip(measured.models.values(), (first, second), strict=True):
        latency.p50_ms *= factor
    return report(benchmarks=[measured], **changes)


@pytest.mark.parametrize(("accuracy", "passed"), [(0.86, True), (0.85, True), (0.8499, False)])
def test_accuracy_must_not_fall_below_the_margin(accuracy: float, passed: bool) -> None:
    judged = rule("accuracy_drop", with_accuracy(accuracy), with_accuracy(0.86), accuracy_drop=0.01)
    assert judged.passed is passed
    assert judged.measured == pytest.approx(0.86 - accuracy)


def test_accuracy_on_other_data_is_refused_or_marked() -> None:
    now, then = report(), report()
    then.recipe["data"] = now.recipe.get("data", {}) | {"source": "module:other"}
    judged = rule("accuracy_drop", now, then)
    assert not judged.passed and "module:other" in judged.text
    then.recipe["data"] = now.recipe.get("data", {}) | {"root": "/elsewhere"}
    judged = rule("accuracy_drop", now, then)
    assert judged.passed and "/elsewhere" in judged.text


def test_a_recipe_that_is_none_tells_of_no_data() -> None:
    then = report()
    then.recipe["data"] = ["source"]
    assert rule("accuracy_drop", report(), then).passed


def test_accuracy_that_is_not_known_fails() -> None:
    assert not rule("accuracy_drop", with_accuracy(None), with_accuracy(0.86)).passed


@pytest.mark.parametrize(("factor", "passed"), [(0.5, True), (1.049, True), (1.051, False)])
def test_latency_must_not_rise_above_the_margin(factor: float, passed: bool) -> None:
    judged = rule("slowdown", with_latency(1, factor), report(), slowdown=0.05)
    assert judged.passed is passed
    assert judged.measured == pytest.approx(factor - 1)


def test_a_machine_that_was_slower_as_a_whole_is_no_slowdown() -> None:
    assert rule("slowdown", with_latency(1.3, 1.3), report()).measured == pytest.approx(0)


def test_another_dense_network_is_no_yardstick() -> None:
    other = Network(params=999999, macs=40551040, accuracy=0.8761, onnx_bytes=1103312)
    assert rule("slowdown", with_latency(1.3, 1.3, dense=other), report()).measured == pytest.approx(0.3)


@pytest.mark.parametrize("key", ["cpu", "cores", "usable_cores", "cpu_quota"])
def test_latencies_of_other_machines_are_not_compared(key: str) -> None:
    judged = rule("slowdown", report(environment=ENVIRONMENT | {key: 99}), report())
    assert (judged.measured, judged.passed) == (None, False)
    assert f"{key}: {ENVIRONMENT.get(key)} then, 99 now" in judged.text


def test_another_batch_size_is_another_setting() -> None:
    assert "batch 8 now" in rule("slowdown", report(benchmarks=[benchmark(batch=8)]), report()).text


def test_a_margin_of_none_judges_nothing_and_without_a_baseline_there_are_no_rules() -> None:
    none = {"parity": None, "speedup": None, "accuracy_drop": None}
    accept = AcceptSection(**none, baseline=BaselineSection(accuracy_drop=None, slowdown=None))  # type: ignore[arg-type]
    assert len(judge(accept, Target(macs=0.5), report(), report())) == 1
    assert len(judge(AcceptSection(**none), Target(macs=0.5), report())) == 1  # type: ignore[arg-type]


def test_a_baseline_is_a_report_or_its_directory(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(report().to_json())
    assert load_baseline(tmp_path) == load_baseline(tmp_path / "report.json") == report()


def test_a_baseline_must_have_been_accepted(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(report(accept=[]).to_json())
    with pytest.raises(InputError, match="not accepted itself"):
        load_baseline(tmp_path)
