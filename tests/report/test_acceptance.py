from __future__ import annotations

import pytest

from compressor.recipe import AcceptSection, BaselineSection, Target
from compressor.report.acceptance import CRITERIA, judge
from compressor.report.rules import Criterion
from compressor.report.schema import Network, Parity, Quality, Report, Rule
from compressor.report.writers.tables import rule_rows
from tests.report.examples import benchmark, report


def rule(name: str, of: Report, target: Target | None = None, **accept: float | None) -> Rule:
    """Judge by the given rules alone and return one of them."""
    asked = AcceptSection(**({"parity": None, "speedup": None, "accuracy_drop": None} | accept))  # type: ignore[arg-type]
    return {rule.name: rule for rule in judge(asked, target or Target(macs=0.5), of)}[name]


def with_compact(**changes: object) -> Report:
    """Return a report whose dense network costs 1000 of everything."""
    dense = Network(params=1000, macs=1000, accuracy=0.9, onnx_bytes=1000)
    compact = {"params": 500, "macs": 500, "accuracy": 0.9, "onnx_bytes": 500} | changes
    return report(dense=dense, compact=Network(**compact))  # type: ignore[arg-type]


def test_every_bound_of_a_recipe_has_its_row_in_the_table_and_every_row_its_bound() -> None:
    bounds = AcceptSection.model_fields.keys() - {"baseline"}
    assert set(CRITERIA) == bounds | {f"baseline.{name}" for name in BaselineSection.model_fields}


def test_a_new_row_is_judged_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Criterion("≤", lambda value: f"{value:.0f} epochs", lambda case: len(case.report.history), "training took")
    monkeypatch.setitem(CRITERIA, "parity", row)
    judged = rule("parity", report(), parity=4)
    assert (judged.measured, judged.passed, judged.text) == (5, False, "training took")
    shown = rule_rows(report(accept=[judged]))[0]
    assert (shown.required, shown.measured) == ("≤ 4 epochs", "5 epochs")


@pytest.mark.parametrize(("macs", "passed"), [(1, True), (500, True), (505, True), (506, False)])
def test_the_target_may_be_missed_by_one_per_cent_of_it(macs: int, passed: bool) -> None:
    assert rule("target", with_compact(macs=macs)).passed is passed


@pytest.mark.parametrize(("kind", "field"), [("macs", "macs"), ("params", "params"), ("size", "onnx_bytes")])
def test_every_kind_of_target_is_judged_by_its_own_measure(kind: str, field: str) -> None:
    judged = rule("target", with_compact(**{field: 300}), Target(**{kind: 0.4}))
    assert (judged.required, judged.measured, judged.passed) == (0.4, 0.3, True)


def test_the_target_is_judged_though_no_rule_is_asked_for() -> None:
    nothing = AcceptSection(parity=None, speedup=None, accuracy_drop=None)
    assert [rule.name for rule in judge(nothing, Target(macs=0.5), report())] == ["target"]


def test_a_file_that_is_slower_or_much_worse_is_not_accepted_by_default() -> None:
    asked = {rule.name: rule.required for rule in judge(AcceptSection(), Target(macs=0.5), report())}
    assert asked == {"target": 0.5, "accuracy_drop": 0.02, "speedup": 1.0, "parity": 1e-4}
    slower = report(benchmarks=[benchmark(low=0.97)])
    assert [r.name for r in judge(AcceptSection(), Target(macs=0.5), slower) if not r.passed] == [
        "accuracy_drop",
        "speedup",
    ]


@pytest.mark.parametrize(("accuracy", "passed"), [(0.95, True), (0.89, True), (0.8899, False)])
def test_the_accuracy_drop_is_absolute(accuracy: float, passed: bool) -> None:
    judged = rule("accuracy_drop", with_compact(accuracy=accuracy), accuracy_drop=0.01)
    assert judged.measured == pytest.approx(0.9 - accuracy)
    assert judged.passed is passed


def test_a_rule_that_cannot_be_judged_fails_and_says_why() -> None:
    judged = rule("accuracy_drop", with_compact(accuracy=None, agreement=1.0), accuracy_drop=0.5)
    assert not judged.passed
    assert judged.measured is None
    assert "no labelled validation images" in judged.text


@pytest.mark.parametrize(("low", "passed"), [(1.5, True), (1.49, False)])
def test_the_speedup_is_judged_by_the_lower_end_of_its_interval(low: float, passed: bool) -> None:
    judged = rule("speedup", report(benchmarks=[benchmark(low=low)]), speedup=1.5)
    assert (judged.measured, judged.passed) == (low, passed)
    assert "lower end" in judged.text


@pytest.mark.parametrize(
    ("max_rel", "passed"), [(1e-5, True), (2e-4, False), (float("inf"), False), (float("nan"), False)]
)
def test_parity_is_judged_by_the_relative_difference(max_rel: float, passed: bool) -> None:
    assert rule("parity", report(parity=Parity(max_abs=0, max_rel=max_rel)), parity=1e-4).passed is passed


@pytest.mark.parametrize(
    ("name", "bound", "passed"),
    [
        ("params", 500, True),
        ("params", 499, False),
        ("size_mb", 0.0005, True),
        ("size_mb", 0.0004, False),
        ("p99_ms", 2.4, True),
        ("p99_ms", 2.3, False),
        ("peak_mb", 20, True),
        ("peak_mb", 19, False),
    ],
)
def test_limits_are_those_of_the_compact_network(name: str, bound: float, passed: bool) -> None:
    measured = with_compact()
    measured.benchmarks[0].after.peak_bytes = 20_000_000
    assert rule(name, measured, **{name: bound}).passed is passed


def test_percentiles_of_means_are_none_of_calls() -> None:
    measured = with_compact()
    measured.benchmarks[0].calls_per_sample = 12
    judged = rule("p99_ms", measured, p99_ms=2.4)
    assert (judged.measured, judged.passed) == (None, False)
    assert "means of 12 calls" in judged.text


def test_memory_that_was_not_measured_fails() -> None:
    judged = rule("peak_mb", report(), peak_mb=1000)
    assert (judged.measured, judged.passed) == (None, False)
    assert "not measured" in judged.text


def test_a_metric_that_is_better_when_small_must_not_rise() -> None:
    quality = Quality(metric="error", label="mean error", higher_is_better=False, percent=False)
    dense, compact = (Network(params=9, macs=9, metrics={"error": error}) for error in (3.0, 3.4))
    given = report(dense=dense, compact=compact, quality=quality)
    for bound, passed in ((0.5, True), (0.3, False)):
        rule = judge(AcceptSection(accuracy_drop=bound, speedup=None, parity=None), Target(macs=1.0), given)[1]
        assert (rule.passed, rule.measured) == (passed, pytest.approx(0.4))
    better = report(dense=compact, compact=dense, quality=quality)
    assert judge(AcceptSection(), Target(macs=1.0), better)[1].passed
