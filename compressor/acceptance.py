"""Judging a run: every rule with what it required and what was measured."""

from __future__ import annotations

from compressor.recipe import AcceptSection, Target
from compressor.report.schema import Report, Rule

TARGET_TOLERANCE = 0.01


def judge(accept: AcceptSection, target: Target, report: Report) -> list[Rule]:
    """Judge a report.

    Args:
        accept: The rules that are asked for; None means not asked.
        target: The budget, which is always judged.
        report: The measurements; its own verdicts are ignored.

    Returns:
        The rules in a fixed order. One that was asked for and cannot be judged has failed.
    """
    rules = [_target(target, report)]
    if accept.accuracy_drop is not None:
        rules.append(_accuracy_drop(accept.accuracy_drop, report))
    if accept.speedup is not None:
        rules.append(_speedup(accept.speedup, report))
    if accept.parity is not None:
        rules.append(_parity(accept.parity, report))
    return rules


def _target(target: Target, report: Report) -> Rule:
    kind, required = next((kind, share) for kind, share in target if share is not None)
    field = "onnx_bytes" if kind == "size" else kind
    dense, compact = getattr(report.dense, field), getattr(report.compact, field)
    text = f"share of {'the ONNX file' if kind == 'size' else kind} that is kept, at most 1 % above the target"
    measured = compact / dense
    return Rule(
        name="target",
        required=required,
        measured=measured,
        passed=measured <= required * (1 + TARGET_TOLERANCE),
        text=text,
    )


def _accuracy_drop(required: float, report: Report) -> Rule:
    name, dense, compact = "accuracy_drop", report.dense.accuracy, report.compact.accuracy
    if dense is None or compact is None:
        reason = "cannot be judged: the data has no labelled validation images"
        return Rule(name=name, required=required, measured=None, passed=False, text=reason)
    drop = dense - compact
    # Accuracies are counts divided by the same number: a drop that equals the bound must not fail by rounding.
    passed = drop <= required + 1e-9
    return Rule(name=name, required=required, measured=drop, passed=passed, text="top-1 lost, dense minus compact")


def _speedup(required: float, report: Report) -> Rule:
    first = report.benchmarks[0]
    text = (
        f"lower end of the 95 % interval of the measured speed-up ({first.setting}; median {first.speedup.median:.2f})"
    )
    low = first.speedup.low
    return Rule(name="speedup", required=required, measured=low, passed=low >= required, text=text)


def _parity(required: float, report: Report) -> Rule:
    measured = report.parity.max_rel
    text = "largest difference between the ONNX file and PyTorch, relative to the largest output"
    return Rule(name="parity", required=required, measured=measured, passed=measured <= required, text=text)
