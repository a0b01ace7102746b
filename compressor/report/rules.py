"""How a rule of acceptance is put down."""

from __future__ import annotations

from compressor.report.schema import Rule

ROUNDING = 1e-9
"""Accuracies are counts divided by the same number: a drop that equals its bound must not fail by rounding."""
NO_LABELS = "the data has no labelled validation images"


def at_most(name: str, required: float, measured: float | None, text: str, *, rounding: float = 0.0) -> Rule:
    """A rule that holds where `measured` does not exceed `required`; not where it was not measured."""
    if measured is None:
        return unjudged(name, required, "it was not measured")
    passed = measured <= required + rounding
    return Rule(name=name, required=required, measured=measured, passed=passed, text=text)


def unjudged(name: str, required: float, reason: str) -> Rule:
    """A rule that was asked for and cannot be judged: it has failed."""
    return Rule(name=name, required=required, measured=None, passed=False, text=f"cannot be judged: {reason}")
