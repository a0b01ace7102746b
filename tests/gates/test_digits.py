"""The network of the demonstration ends at the same verdict with every gate."""

from __future__ import annotations

import pytest
import torch

from compressor.errors import InputError
from compressor.gates.settings import read_gate
from compressor.gates.trainer import Learnt, train_gates
from compressor.recipe import CompressSection, FinetuneSection
from compressor.selection.base import Calibration, Ranking
from compressor.selection.methods.magnitude import Magnitude
from compressor.training.loop import finetune
from tests.gates.conftest import Digits
from tests.gates.test_contract import GATES

DROP = 0.03


def learn(
    digits: Digits, gate: str, epochs: int = 3, first: dict[str, Ranking] | None = None, **options: object
) -> Learnt:
    section = CompressSection.model_validate({"method": gate, "options": options, "target": {"macs": 0.5}})
    make, settings = read_gate(section)
    training = FinetuneSection.model_validate({"epochs": epochs, "lr": 0.02})
    loader = digits.data.train or ()
    return train_gates(
        digits.model, digits.groups, loader, make, settings, digits.budget, training, first=first, seed=0
    )


@pytest.mark.parametrize("gate", GATES)
def test_every_gate_is_accepted(gate: str, digits: Digits) -> None:
    small = digits.compact(learn(digits, gate))
    training = FinetuneSection.model_validate({"epochs": 2, "lr": 0.02})
    finetune(small, digits.model, digits.data.train or (), training, seed=0)
    assert digits.accuracy(small) >= digits.accuracy(digits.model) - DROP


def test_what_the_gates_learnt_is_worth_more_than_what_magnitude_says(digits: Digits) -> None:
    learnt = learn(digits, "dep_l0")
    chance = Learnt(digits.model, Magnitude().rank(Calibration(digits.model, digits.groups, [])), [], [])
    assert digits.accuracy(digits.compact(learnt)) > digits.accuracy(digits.compact(chance)) + 0.3


def test_a_ranking_decides_which_gates_close_first(digits: Digits) -> None:
    ranked = Magnitude().rank(Calibration(digits.model, digits.groups, []))
    worst = {name: Ranking(ranking.order[::-1], ranking.error) for name, ranking in ranked.items()}
    wanted = digits.budget.widths(digits.groups, worst)

    def shared(first: dict[str, Ranking] | None) -> int:
        rankings = learn(digits, "l0_hc", epochs=2, first=first).rankings
        widths = digits.budget.widths(digits.groups, rankings)
        return sum(len({*rankings[n].order[:w]} & {*worst[n].order[: wanted[n]]}) for n, w in widths.items())

    assert shared(worst) > shared(None) + 5


def test_a_fixed_price_closes_more_when_it_is_higher(digits: Digits) -> None:
    def left(price: float) -> float:
        movement = learn(digits, "l0_hc", epochs=2, harden=0, **{"lambda": price}).movements[-1]
        return sum(movement.expected.values())

    assert left(30.0) < left(5.0)


def test_a_price_that_closes_nothing_says_so(digits: Digits) -> None:
    with pytest.raises(InputError, match=r"the gates close \d of 168 units(.|\n)*raise `lambda`"):
        learn(digits, "l0_hc", epochs=1, **{"lambda": 1e-9})


def test_the_expected_cost_follows_the_target(digits: Digits) -> None:
    learnt = learn(digits, "l0_hc", epochs=6, harden=0)
    cost = digits.budget.cost
    last = {name: torch.tensor(width) for name, width in learnt.movements[-1].expected.items()}
    still = {name: torch.tensor(0.0) for name in last}
    assert float(cost.expected(last, still, {})) / cost.dense == pytest.approx(0.5, abs=0.06)
