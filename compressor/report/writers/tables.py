"""The tables of a report in words and units for people; all writers share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from compressor.budget.targets.base import Target, make_target, target_kinds
from compressor.report.schema import Finetune, Quality, Report, Rule
from compressor.support.units import count, milliseconds, percent, size, times
from compressor.training.history import BEFORE


class Row(NamedTuple):
    """One quantity before and after."""

    label: str
    dense: str
    compact: str
    change: str


class RuleRow(NamedTuple):
    """One rule of acceptance."""

    name: str
    required: str
    measured: str
    passed: bool
    text: str


def points(value: float) -> str:
    """Format a difference of shares, with its sign: `+0.31 points`."""
    return f"{100 * value:+.2f} points"


def _shrunk(dense: float, compact: float) -> str:
    return f"{times(dense / compact)} smaller" if compact <= dense else f"{times(compact / dense)} larger"


def comparison(report: Report) -> list[Row]:
    """Return the before/after table: cost, size, accuracy and the median latency of every benchmark."""
    dense, compact = report.dense, report.compact
    rows = [
        Row("Parameters", count(dense.params), count(compact.params), _shrunk(dense.params, compact.params)),
        Row("Multiply-adds per input", count(dense.macs), count(compact.macs), _shrunk(dense.macs, compact.macs)),
    ]
    if dense.onnx_bytes and compact.onnx_bytes:
        change = _shrunk(dense.onnx_bytes, compact.onnx_bytes)
        rows.append(Row("ONNX file", size(dense.onnx_bytes), size(compact.onnx_bytes), change))
    return rows + _quality(report) + _latencies(report) + _batch(report)


def _quality(report: Report) -> list[Row]:
    rows = []
    states = [("before fine-tuning", report.pruned)] if report.history else []
    for when, state in [*states, ("", report.compact)]:
        dense, found = report.main(report.dense), report.main(state)
        if dense is not None and found is not None:
            show, differ = (percent, points) if report.quality.percent else (_plain, _difference)
            rows.append(Row(_title(report.quality.label, when), show(dense), show(found), differ(found - dense)))
        elif state.agreement is not None:
            rows.append(Row(_title(report.quality.agreement, when), "100 %", percent(state.agreement), ""))
    return rows


def _title(label: str, when: str) -> str:
    return f"{label[:1].upper()}{label[1:]} {when}".rstrip()


def _plain(value: float) -> str:
    return f"{value:.4g}"


def _difference(value: float) -> str:
    return f"{value:+.4g}"


def _latencies(report: Report) -> list[Row]:
    rows = []
    for bench in report.benchmarks:
        dense, compact = list(bench.models.values())[:2]
        low, high = times(bench.speedup.low), times(bench.speedup.high)
        change = f"{times(bench.speedup.median)} as fast ({low} to {high})"
        rows.append(Row(f"Latency, {bench.setting}", milliseconds(dense.p50_ms), milliseconds(compact.p50_ms), change))
    return rows


def _lost(value: float) -> str:
    return f"{100 * value:.2f} points"


def _batch(report: Report) -> list[Row]:
    if report.batch is None:
        return []
    mine, other = ("any", "fixed") if report.batch.dynamic else ("fixed", "dynamic")
    found = report.batch.other
    change = f"a {other} one would be {times(found.median)} as fast ({times(found.low)} to {times(found.high)})"
    return [Row("Batch size", mine, mine, change)]


_RULES: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy_drop": ("≤", _lost),
    "speedup": ("≥", times),
    "parity": ("≤", lambda value: f"{value:.1e}"),
    "params": ("≤", count),
    "size_mb": ("≤", lambda value: size(1e6 * value)),
    "p99_ms": ("≤", milliseconds),
    "peak_mb": ("≤", lambda value: size(1e6 * value)),
    "baseline.accuracy_drop": ("≤", _lost),
    "baseline.slowdown": ("≤", percent),
}


def rule_rows(report: Report) -> list[RuleRow]:
    """Return the rules of acceptance with required and measured value in their units."""
    return [
        _rule_row(rule, _target(report) if rule.name == "target" else None, report.quality.percent)
        for rule in report.accept
    ]


def _target(report: Report) -> Target | None:
    """The target of a report; None where this version knows no such kind."""
    asked = {name: value for name, value in report.target.items() if value is not None}
    return make_target(asked) if len(asked) == 1 and asked.keys() <= target_kinds().keys() else None


def _rule_row(rule: Rule, target: Target | None, shares: bool) -> RuleRow:
    sign, show = (target.sign, target.format) if target else _RULES.get(rule.name, ("", str))
    show = _plain if show is _lost and not shares else show
    measured = "not measured" if rule.measured is None else show(rule.measured)
    tolerance = f" + {percent(target.tolerance)} of it" if target and target.tolerance else ""
    return RuleRow(rule.name, f"{sign} {show(rule.required)}{tolerance}", measured, rule.passed, rule.text)


def verdict(report: Report) -> str:
    """Say in one sentence what came out: how fast and how good, accepted or not."""
    found = f"{_speed(report)}, {_kept(report)}"
    if report.accepted:
        rules = f"all {len(report.accept)} rules hold" if len(report.accept) > 1 else "its one rule holds"
        return f"Accepted: {found}; {rules}."
    failed = [f"{rule.name} failed ({_missed(rule, report)})" for rule in report.accept if not rule.passed]
    return f"Not accepted: {', '.join(failed) or 'no rule was judged'}: {found}."


def _speed(report: Report) -> str:
    """How fast the network has become; by the table where it is for another device than this one."""
    if report.speed and not report.speed.measured:
        return f"{times(report.speed.attempts[-1].speedup.median)} as fast by the table of its device"
    found = report.benchmarks[0].speedup
    slower = f"slower; {times(found.low)} to {times(found.high)}" if found.median < 1 else None
    return f"{times(found.median)} as fast ({slower or f'{found.low:.2f} to {found.high:.2f}'})"


def _kept(report: Report) -> str:
    """What is left of the quality."""
    dense, compact, quality = report.main(report.dense), report.main(report.compact), report.quality
    if dense is None or compact is None:
        agreement = report.compact.agreement
        same = "not known" if agreement is None else f"{100 * agreement:.1f} %"
        return f"{quality.agreement} {same}"
    if not quality.percent:
        return f"{quality.label} {_plain(dense)} to {_plain(compact)} ({_difference(compact - dense)})"
    change = f"{100 * (compact - dense):+.1f} points"
    return f"{quality.label} {100 * dense:.1f} % to {100 * compact:.1f} % ({change})"


def _missed(rule: Rule, report: Report) -> str:
    """Measured and required value of a rule, in the units of the recipe."""
    target = _target(report) if rule.name == "target" else None
    sign = target.sign if target else _RULES.get(rule.name, ("",))[0]
    bound = "at least" if sign == "≥" else "at most"
    measured = "not measured" if rule.measured is None else _number(rule.measured)
    return f"{measured}, {bound} {_number(rule.required)}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else count(value)


def training_line(found: Finetune, quality: Quality) -> str:
    """Say in one sentence what fine-tuning delivers, and why."""
    before, after = found.held_out.before, found.after
    delivers = f"delivers {found.delivered} of {len(found.held_out.epochs)}"
    helped = "did not help, and is not used" if found.delivered == BEFORE else delivers
    images = f"{found.images} {'training images' if found.problem else 'held-out training images'}"
    show = percent if quality.percent else _plain
    was, now = (show(score.metrics.get(quality.metric, score.accuracy or 0.0)) for score in (before, after))
    main = f"{quality.label} {was} before it, {now} after"
    return f"Fine-tuning {helped}: on {images} {main} (loss {before.loss:.3f}, {after.loss:.3f})."
