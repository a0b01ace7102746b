"""What holds for every kind of target."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from compressor.budget.targets.base import Target, make_target, target_kinds
from compressor.errors import InputError
from compressor.recipe import AcceptSection
from compressor.recipe import Target as Section
from compressor.report.acceptance import judge
from compressor.report.schema import Rule
from compressor.report.writers.tables import rule_rows
from tests.report.examples import report

KINDS = target_kinds()


def example(kind: type[Target]) -> float:
    return (kind.above + min(kind.most, kind.above + 2)) / 2


@pytest.mark.parametrize("name", KINDS)
def test_a_recipe_takes_it_and_refuses_what_can_never_be_met(name: str) -> None:
    kind = KINDS[name]
    assert Section(**{name: example(kind)}).asked == {name: example(kind)}
    for value in {kind.above, kind.above - 1, kind.most + 1} - {math.inf}:
        with pytest.raises(ValidationError):
            Section(**{name: value})


def judged(name: str, value: float) -> Rule:
    return judge(AcceptSection(), Section(**{name: value}), report())[0]


@pytest.mark.parametrize("name", KINDS)
def test_it_is_found_by_its_name_and_judges_a_report(name: str) -> None:
    target = make_target({name: example(KINDS[name])})
    assert type(target) is KINDS[name] and target.sign in ("≤", "≥")
    rule = judged(name, target.value)
    assert rule.name == "target" and rule.required == target.value and rule.text
    if rule.measured is None:
        assert not rule.passed and "cannot be judged" in rule.text


@pytest.mark.parametrize("name", KINDS)
def test_a_better_result_is_never_judged_worse(name: str) -> None:
    kind = KINDS[name]
    measured = judged(name, example(kind)).measured
    if measured is None:
        return
    easier, harder = (measured * factor for factor in ((1.1, 0.9) if kind.sign == "≤" else (0.9, 1.1)))
    assert judged(name, easier).passed and not judged(name, harder).passed


@pytest.mark.parametrize("name", KINDS)
def test_the_report_shows_it_with_its_sign_and_unit(name: str) -> None:
    value = example(KINDS[name])
    asked = report(recipe={"compress": {"target": {name: value}}})
    asked.accept = judge(AcceptSection(), Section(**{name: value}), asked)[:1]
    (row,) = rule_rows(asked)
    target = make_target({name: value})
    assert row.required.startswith(f"{target.sign} {target.format(value)}")


def test_an_unknown_kind_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="speedpu") as error:
        make_target({"speedpu": 2.0})
    assert "did you mean 'speedup'" in str(error.value.cure)
