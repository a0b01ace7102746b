"""The contract of every schedule, and the values of each."""

from __future__ import annotations

import pytest

from compressor import plugins
from compressor.errors import InputError
from compressor.training.schedules.base import Schedule
from compressor.training.schedules.constant import Constant
from compressor.training.schedules.cosine import Cosine

PACKAGE = "compressor.training.schedules"
ALL = plugins.discover(PACKAGE, Schedule)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_every_schedule_starts_above_zero_and_ends_no_higher_within_its_bounds(name: str, steps: int) -> None:
    schedule = ALL[name]()
    factors = [schedule.factor(step, steps) for step in range(steps)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0
    assert factors[-1] <= factors[0]


@pytest.mark.parametrize("name", ALL)
def test_every_schedule_depends_on_nothing_but_the_step(name: str) -> None:
    schedule = ALL[name]()
    forward = [schedule.factor(step, 9) for step in range(9)]
    assert [schedule.factor(step, 9) for step in reversed(range(9))] == forward[::-1]


def test_the_schedules_of_the_first_release_are_found() -> None:
    assert {"cosine", "constant"} <= set(ALL)


def test_cosine_falls_from_one_through_a_half_to_nearly_zero() -> None:
    factors = [Cosine().factor(step, 100) for step in range(100)]
    assert factors[0] == 1
    assert factors[50] == pytest.approx(0.5)
    assert 0 < factors[99] < 0.001
    assert factors == sorted(factors, reverse=True)


def test_constant_stays_at_one() -> None:
    assert {Constant().factor(step, 10) for step in range(10)} == {1.0}


def test_a_misspelt_schedule_names_the_nearest_one() -> None:
    with pytest.raises(InputError, match="finetune.schedule: 'cosin' is not known\n.*did you mean 'cosine'"):
        plugins.find(PACKAGE, Schedule, "cosin", where="finetune.schedule")
