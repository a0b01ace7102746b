"""Every method ranks for a task of its own kind, too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.selection.base import Method
from compressor.selection.methods.greedy_forward import GreedyForward
from compressor.selection.methods.imitation import Imitation
from compressor.support.plugins import discover
from compressor.tasks import Mean, Metric, Task
from tests.selection.test_contract import calibration

METHODS = discover("compressor.selection.methods", Method)


class Sum(Task):
    """The sum of the outputs is what counts; there is no second derivative of the loss that could be asked for."""

    name, summary = "sum", "the sum of all outputs"

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return (outputs.sum(1) - targets).abs().mean()

    def metrics(self) -> dict[str, Metric]:
        return {"error": Mean(self.losses, "error", higher_is_better=False, percent=False)}


def given(task: Task) -> Any:
    plain = calibration("plain")
    return replace(plain, task=task, labels=[torch.randn(8) for _ in plain.images])


@pytest.mark.parametrize("kind", METHODS)
def test_every_method_ranks_for_any_task(kind: str) -> None:
    rankings = METHODS[kind]().rank(given(Sum()))
    for group in given(Sum()).groups:
        ranking = rankings[group.name]
        assert sorted(ranking.order) == list(range(group.size))
        assert all(a >= b >= 0 for a, b in zip(ranking.error, ranking.error[1:], strict=False))


@pytest.mark.parametrize("method", [METHODS["taylor"](), GreedyForward(loss="task", images=16), Imitation()])
def test_the_task_decides_what_units_are_worth(method: Method) -> None:
    own, usual = method.rank(given(Sum())), method.rank(calibration("plain"))
    assert any(own[name].error != usual[name].error for name in usual)


def test_the_loss_of_the_task_and_cross_entropy_are_the_same_in_classification() -> None:
    first, second = (
        GreedyForward(loss=loss, images=16).rank(calibration("plain")) for loss in ("task", "cross_entropy")
    )
    assert first == second


def test_the_loss_of_a_task_needs_targets() -> None:
    with pytest.raises(InputError, match="task needs labels"):
        GreedyForward(loss="task", images=16).rank(replace(given(Sum()), labels=None))
