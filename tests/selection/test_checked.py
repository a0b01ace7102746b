"""What a method from elsewhere returns is checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from compressor.errors import InputError
from compressor.selection.base import Calibration, Method, Ranking
from compressor.selection.checked import rank
from compressor.selection.methods.magnitude import Magnitude
from compressor.structure import find_groups
from tests.networks import INPUT, build

Change = Callable[[Ranking], Ranking | None]


class Changed(Method):
    """Magnitude, with the ranking of the first group changed."""

    name, summary, paper = "changed", "", ""

    def __init__(self, change: Change) -> None:
        self.change = change

    def rank(self, calibration: Calibration) -> dict[str, Ranking]:
        rankings = Magnitude().rank(calibration)
        name = next(iter(rankings))
        changed = self.change(rankings.pop(name))
        return rankings | ({name: changed} if changed else {})


def ranked(change: Change, kind: str = "plain") -> Mapping[str, Ranking]:
    model = build(kind)
    return rank(Changed(change), Calibration(model, find_groups(model, torch.zeros(1, *INPUT)), []), where="here")


def test_rankings_that_keep_the_contract_pass() -> None:
    assert set(ranked(lambda ranking: ranking)) == {"0.0", "1.0"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: None, "there is no ranking"),
        (lambda r: Ranking(r.order[1:], r.error), "does not name every unit once"),
        (lambda r: Ranking(r.order, r.error[1:]), "has 8 numbers, expected 9 finite ones"),
        (lambda r: Ranking(r.order, (float("nan"), *r.error[1:])), "expected 9 finite ones"),
        (lambda r: Ranking(r.order, r.error[::-1]), "rises, or does not end at 0"),
        (lambda r: Ranking(r.order, tuple(e + 1 for e in r.error)), "rises, or does not end at 0"),
    ],
)
def test_a_ranking_that_breaks_the_contract_is_named(change: Change, words: str) -> None:
    with pytest.raises(InputError, match="'changed' ranks the group '0.0' of 8 units wrongly") as caught:
        ranked(change)
    assert words in str(caught.value)
    assert caught.value.where == "here" and caught.value.cure


def test_orders_are_balanced_over_the_groups_of_a_convolution() -> None:
    with pytest.raises(InputError, match=r"use group\.balanced"):
        ranked(lambda r: Ranking(tuple(range(len(r.order))), r.error), "grouped")


def test_what_a_method_raises_is_put_down_to_it() -> None:
    def fail(ranking: Ranking) -> Ranking:
        raise ZeroDivisionError("by nothing")

    with pytest.raises(InputError, match="here: 'changed' raised ZeroDivisionError: by nothing"):
        ranked(fail)
