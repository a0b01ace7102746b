"""Training ends with the best weights that it has seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from compressor.data.base import HeldOut
from compressor.recipe import FinetuneSection
from compressor.report.schema import Finetune
from compressor.tasks import Mean, Metric, Task, evaluate
from compressor.training.best import Best, Score
from compressor.training.loop import finetune
from tests.training.conftest import Tiny

Make = Callable[[], DataLoader]


def score(right: str, loss: float) -> Score:
    return Score(torch.tensor([letter == "+" for letter in right]), loss)


@pytest.fixture
def held_out() -> HeldOut:
    images = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    labels = (images.mean((1, 2, 3)) * 8).round().clamp(-1, 1).long() + 1
    return HeldOut(DataLoader(TensorDataset(images, labels), 16))


def copied(model: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def same(model: nn.Module, weights: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), weights, strict=True))


def test_right_answers_decide_where_they_differ_by_more_than_chance_and_the_loss_otherwise() -> None:
    assert score("++++--", 2.0).beats(score("------", 1.0))
    assert not score("------", 1.0).beats(score("++++--", 2.0))
    assert score("+-----", 1.0).beats(score("-+----", 2.0))
    assert not score("++----", 2.0).beats(score("-+----", 1.0))
    assert not score("++++++", 1.0).beats(score("++++++", 1.0))


def test_training_that_helps_delivers_an_epoch(make_loader: Make, settings: FinetuneSection, held_out: HeldOut) -> None:
    model, last = Tiny(), Tiny()
    best = Best(model, held_out)
    finetune(model, None, make_loader(), settings, best=best)
    finetune(last, None, make_loader(), settings)
    found = Finetune.model_validate(best.found())
    assert (found.delivered, found.images, found.problem) == ("epoch 3", 40, None)
    assert same(model, copied(last))
    judged = evaluate(model, held_out.batches)
    assert (judged.main, judged.metrics["loss"]) == pytest.approx((found.after.accuracy, found.after.loss))
    assert found.after.loss < found.held_out.before.loss


def test_training_that_harms_delivers_what_it_began_with(make_loader: Make, held_out: HeldOut) -> None:
    model = Tiny()
    finetune(model, None, make_loader(), FinetuneSection(epochs=6, lr=0.05))
    begun, best = copied(model), Best(model, held_out)
    finetune(model, None, make_loader(), FinetuneSection(epochs=2, lr=5.0, warmup=0.0), best=best)
    assert best.found()["delivered"] == "before"
    assert same(model, begun)


def test_an_epoch_that_is_better_than_the_last_one_is_delivered(make_loader: Make, held_out: HeldOut) -> None:
    model = Tiny()
    best = Best(model, held_out)
    scores = iter([score("+-", 3.0), score("+-", 1.0), score("+-", 2.0)])
    best._score = lambda: next(scores)  # type: ignore[method-assign]
    after: dict[int, list[Tensor]] = {}
    settings = FinetuneSection(epochs=2, lr=0.05)
    finetune(model, None, make_loader(), settings, best=best, progress=lambda p: after.update({p.epoch: copied(model)}))
    assert best.found()["delivered"] == "epoch 1"
    assert same(model, after[1])


def test_the_mean_of_the_last_weights_is_what_is_judged(make_loader: Make, held_out: HeldOut) -> None:
    settings = FinetuneSection(epochs=2, lr=0.05, average=0.5)
    model, plain = Tiny(), Tiny()
    best = Best(model, held_out)
    finetune(model, None, make_loader(), settings, best=best)
    finetune(plain, None, make_loader(), settings)
    assert best.chosen == 2
    assert same(model, copied(plain))
    assert evaluate(plain, held_out.batches).metrics["loss"] == pytest.approx(best.scores[2][1])


def test_other_weights_can_be_what_the_training_is_compared_with(make_loader: Make, held_out: HeldOut) -> None:
    model, begun = Tiny(seed=3), Tiny(seed=5)
    best = Best(model, held_out, begun=begun.state_dict())
    finetune(model, None, make_loader(), FinetuneSection(epochs=1, lr=1e-9), best=best)
    before = evaluate(begun, held_out.batches)
    assert best.scores[0] == pytest.approx((before.main, before.metrics["loss"]))
    assert best.scores[1] != pytest.approx(best.scores[0])


def test_outputs_that_are_no_numbers_lose(held_out: HeldOut) -> None:
    model = Tiny()
    best = Best(model, held_out)
    best.judge()
    nn.init.constant_(model.head.weight, float("nan"))
    best.judge()
    assert (best.chosen, best.scores[1]) == (0, (0.0, float("inf")))


class Distance(Task):
    """The distance of the first output from the label; smaller is better, and no mean of scores is known."""

    name, summary = "distance", "the distance from the label"

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return (outputs[:, 0] - targets).square().mean()

    def metrics(self) -> dict[str, Metric]:
        return {"distance": Mean(self._distances, "distance", higher_is_better=False, percent=False)}

    def _distances(self, outputs: Any, targets: Any) -> Tensor:
        return (outputs[:, 0] - targets).abs()


class Scored(Distance):
    def scores(self, outputs: Any, targets: Any) -> Tensor:
        return self._distances(outputs, targets)


@pytest.mark.parametrize("task", [Distance(), Scored()], ids=lambda task: type(task).__name__)
def test_any_task_can_judge(make_loader: Make, settings: FinetuneSection, held_out: HeldOut, task: Task) -> None:
    model = Tiny()
    best = Best(model, held_out, task=task)
    history = finetune(model, None, make_loader(), settings, best=best, task=task)
    found = Finetune.model_validate(best.found())
    judged = evaluate(model, held_out.batches, task)
    assert found.delivered != "before" and found.after.accuracy is None
    assert found.after.metrics == pytest.approx(judged.metrics)
    assert found.after.metrics["distance"] < found.held_out.before.metrics["distance"]
    assert all(("distance" in epoch.metrics) == isinstance(task, Scored) for epoch in history)
