"""The tables of a report, as all writers show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from compressor.budget.targets.base import make_target, target_kinds
from compressor.report.acceptance import CRITERIA, target_criterion
from compressor.report.rules import AT_LEAST, Criterion
from compressor.report.schema import DENSE, FP32, Benchmark, Finetune, Network, Quality, Report, Rule, Speedup
from compressor.support.units import count, lost, milliseconds, percent, points, size, times
from compressor.training.history import BEFORE


class Comparison(NamedTuple):
    """All variants beside each other.

    Attributes:
        head: Of the columns: a quantity, every variant, the change from the dense to the delivered one.
        rows: One for each quantity.
        delivered: Number of the delivered variant's column.
    """

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    delivered: int


class RuleRow(NamedTuple):
    """One rule of acceptance."""

    name: str
    required: str
    measured: str
    passed: bool
    text: str


def _shrunk(dense: float, compact: float) -> str:
    return f"{times(dense / compact)} smaller" if compact <= dense else f"{times(compact / dense)} larger"


def comparison(report: Report) -> Comparison:
    """Return the table of all variants: cost, size, accuracy and the median latency of every benchmark."""
    rows = [
        _cost("Parameters", report, count, {name: report.network(name).params for name in report.files}),
        _cost("Multiply-adds per input", report, count, {name: report.network(name).macs for name in report.files}),
        _cost("ONNX file", report, size, {name: file.bytes for name, file in report.files.items()}),
        *_quality(report),
        *(_latency(bench, report) for bench in report.benchmarks),
        *_batch(report),
    ]
    head = ("", *(title(name) for name in report.files), "Change")
    return Comparison(head, [row for row in rows if row], head.index(title(report.delivered)))


def _begin(label: str) -> str:
    return f"{label[:1].upper()}{label[1:]}"


def _plain(value: float) -> str:
    return f"{value:.4g}"


def _difference(value: float) -> str:
    return f"{value:+.4g}"


def title(variant: str) -> str:
    """Return the name of a variant as the head of a column: `Dense int8`."""
    return variant.replace("_", " ").capitalize()


def _row(label: str, cells: Mapping[str, str], change: str, report: Report) -> tuple[str, ...]:
    """A row of `comparison`; variants that have no cell stay empty."""
    return (label, *(cells.get(name, "") for name in report.files), change)


def _cost(
    label: str, report: Report, show: Callable[[float], str], values: Mapping[str, float | None]
) -> tuple[str, ...] | None:
    """What every variant costs, and how much smaller the delivered one is; None where that is not known."""
    dense, delivered = values[DENSE], values[report.delivered]
    if not dense or not delivered:
        return None
    cells = {name: show(value) for name, value in values.items() if value is not None}
    return _row(label, cells, _shrunk(dense, delivered), report)


def _quality(report: Report) -> list[tuple[str, ...]]:
    """Accuracy, or agreement, of the networks: a file of another precision does not compute quite the same."""
    exact = [name for name, file in report.files.items() if file.precision == FP32]
    states = {name: report.network(name) for name in exact}
    before = {name: report.pruned if name != DENSE else network for name, network in states.items()}
    rows = _judged("", states, report)
    return [*_judged(" before fine-tuning", before, report), *rows] if report.history else rows


def _judged(when: str, states: Mapping[str, Network], report: Report) -> list[tuple[str, ...]]:
    """One row, or none where nothing is known of the compact network."""
    dense, quality = report.main(report.dense), report.quality
    show, differ = (percent, points) if quality.percent else (_plain, _difference)
    last = [network for name, network in states.items() if name != DENSE][-1:]
    for state in last:
        found = report.main(state)
        if found is not None and dense is not None:
            known = {name: report.main(network) for name, network in states.items()}
            cells = {name: show(value) for name, value in known.items() if value is not None}
            return [_row(f"{_begin(quality.label)}{when}", cells, differ(found - dense), report)]
        if state.agreement is not None:
            same = {name: n.agreement for name, n in states.items() if n.agreement is not None}
            cells = {DENSE: "100 %"} | {name: percent(agreement) for name, agreement in same.items()}
            return [_row(f"{_begin(quality.agreement)}{when}", cells, "", report)]
    return []


def _latency(bench: Benchmark, report: Report) -> tuple[str, ...]:
    cells = {name: milliseconds(latency.p50_ms) for name, latency in bench.models.items()}
    return _row(f"Latency, {bench.setting}", cells, faster(bench.speedup), report)


def faster(found: Speedup) -> str:
    """Format a speed-up with its interval: `1.84x as fast (1.80x to 1.88x)`."""
    return f"{times(found.median)} as fast ({times(found.low)} to {times(found.high)})"


def _batch(report: Report) -> list[tuple[str, ...]]:
    if report.batch is None:
        return []
    mine, other = ("any", "fixed") if report.batch.dynamic else ("fixed", "dynamic")
    found = report.batch.other
    cells = dict.fromkeys(report.files, mine)
    return [_row("Batch size", cells, f"a {other} one would be {faster(found)}", report)]


def rule_rows(report: Report) -> list[RuleRow]:
    """Return the rules of acceptance with required and measured value in their units."""
    return [_rule_row(rule, _criterion(rule, report), report.quality.percent) for rule in report.accept]


def _criterion(rule: Rule, report: Report) -> Criterion | None:
    """What a rule was judged by; None for a rule, or a target, of a newer version."""
    if rule.name != "target":
        return CRITERIA.get(rule.name)
    asked = {name: value for name, value in report.target.items() if value is not None}
    known = len(asked) == 1 and asked.keys() <= target_kinds().keys()
    return target_criterion(make_target(asked)) if known else None


def _rule_row(rule: Rule, criterion: Criterion | None, shares: bool) -> RuleRow:
    sign, show = (criterion.sign, criterion.show) if criterion else ("", str)
    show = _plain if show is lost and not shares else show
    measured = "not measured" if rule.measured is None else show(rule.measured)
    tolerance = f" + {percent(criterion.tolerance)} of it" if criterion and criterion.tolerance else ""
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
    criterion = _criterion(rule, report)
    bound = "at least" if criterion and criterion.sign == AT_LEAST else "at most"
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
