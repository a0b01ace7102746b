"""The contract of every schedule, and the values of each."""

from __future__ import annotations

import pytest
import torch

from compressor.errors import InputError
from compressor.support import plugins
from compressor.training.schedules.allr import Adaptive
from compressor.training.schedules.base import Cut, Schedule
from compressor.training.schedules.constant import Constant
from compressor.training.schedules.cosine import Cosine
from compressor.training.schedules.llr import Linear
from compressor.training.schedules.lr_rewind import Rewind
from compressor.training.schedules.silo import SShaped
from tests.training.conftest import Tiny

PACKAGE = "compressor.training.schedules"
ALL = plugins.discover(PACKAGE, Schedule)


CUTS = [Cut(), Cut(0.5, 0.1, 0.01), Cut(0.9, 0.8, 0.6), Cut(1.0, 1.0, 1.0)]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_every_schedule_starts_above_zero_and_ends_no_higher_within_its_bounds(name: str, steps: int, cut: Cut) -> None:
    schedule = ALL[name](cut)
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
    assert {"cosine", "constant", "llr", "allr", "lr_rewind", "silo"} <= set(ALL)


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


def test_llr_falls_evenly() -> None:
    assert [Linear().factor(step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("cut", "start"),
    [
        (Cut(0.5, 0.1, 0.01), 0.1 / 0.5**0.5),
        (Cut(0.5, 0.1, 0.4), 0.4),
        (Cut(0.04, 0.5, 0.01), 1.0),
        (Cut(0.0, 0.0, 0.1), 0.1),
    ],
)
def test_allr_begins_at_the_larger_of_damage_and_budget(cut: Cut, start: float) -> None:
    assert Adaptive(cut).factor(0, 10) == pytest.approx(start)
    assert Adaptive(cut).factor(5, 10) == pytest.approx(start / 2)


def test_lr_rewind_replays_the_end_of_the_original_training() -> None:
    whole, half, last = (Rewind(Cut(budget=budget)) for budget in (1.0, 0.5, 0.1))
    assert [round(whole.factor(step, 8), 6) for step in range(8)] == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    assert [round(half.factor(step, 4), 6) for step in range(4)] == [0.1, 0.1, 0.01, 0.01]
    assert round(last.factor(0, 4), 6) == 0.01


def test_silo_rises_with_what_was_removed() -> None:
    peaks = [SShaped(Cut(pruned)).factor(0, 40) for pruned in (0.0, 0.3, 0.5, 0.7, 1.0)]
    assert peaks == sorted(peaks)
    assert peaks[0] == pytest.approx(3 / 7, rel=1e-3)
    assert peaks[2] == pytest.approx(5 / 7)
    assert peaks[-1] == pytest.approx(1, rel=1e-3)
    assert [round(SShaped(Cut(1.0)).factor(step, 40), 3) for step in (24, 25, 31, 32)] == [1, 0.1, 0.1, 0.01]


def test_a_cut_is_measured_by_its_weights() -> None:
    dense, compact = Tiny(), Tiny()
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.fill_(1.0)
        compact.conv, compact.head = torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(64, 3)
        for parameter in compact.parameters():
            parameter.fill_(1.0)
    cut = Cut.between(dense, compact, 5, 100)
    assert (cut.pruned, cut.damage, cut.budget) == pytest.approx((0.5, 0.5**0.5, 0.05))
    assert Cut.between(None, compact, 500, 100) == Cut()
