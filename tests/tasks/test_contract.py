"""What every task must do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from compressor.errors import InputError
from compressor.recipe import FinetuneSection
from compressor.support.batches import floating, joined, take
from compressor.support.plugins import discover
from compressor.tasks import DEFAULT, Task, find_task
from tests.tasks.examples import BATCH, EXAMPLES, Example, Smallest, Whole

FOUND = discover("compressor.tasks", Task)
TASKS = [*FOUND.values(), Smallest, Whole]
SETTINGS = FinetuneSection()


@pytest.fixture(params=TASKS, ids=lambda kind: kind.name)
def task(request: pytest.FixtureRequest) -> Task:
    made: Task = request.param()
    return made


@pytest.fixture
def example(task: Task) -> Example:
    torch.manual_seed(0)
    return EXAMPLES[task.name]()


@pytest.fixture
def targets(task: Task, example: Example) -> Any:
    return task.split(example.batch)[1]


def with_gradients(outputs: Any) -> Any:
    def leaf(value: Any) -> Any:
        return value.detach().clone().requires_grad_() if isinstance(value, Tensor) else value

    return tree_map(leaf, outputs)


def broken(outputs: Any) -> Any:
    """The outputs, those of the first example no numbers."""
    spoilt = with_gradients(outputs)
    with torch.no_grad():
        for tensor in floating(spoilt):
            tensor[0] = math.nan
    return spoilt


def halves(values: Any) -> list[Any]:
    return [take(values, part, BATCH) for part in (slice(0, 2), slice(2, BATCH))]


def test_tasks_are_found_by_name() -> None:
    assert type(find_task("classification")) is type(DEFAULT)
    with pytest.raises(InputError, match="task: 'clasification' is not known\n.*did you mean 'classification'"):
        find_task("clasification")


def test_a_task_says_what_it_is(task: Task) -> None:
    assert task.name in EXAMPLES, "give the new task an example in tests/tasks/examples.py"
    assert task.summary and "(" in task.batch


def test_batches_are_split_into_inputs_and_targets(task: Task, example: Example) -> None:
    inputs, targets = task.split(example.batch)
    assert isinstance(inputs, tuple) and targets is not None
    assert task.is_batch(example.batch) and not task.is_batch(inputs[0])


def test_items_are_put_together_to_batches(task: Task, example: Example) -> None:
    inputs, targets = task.split(task.collate([example.batch[0][n] for n in range(BATCH)]))
    assert targets is None
    assert torch.equal(inputs[0], example.batch[0])


def test_outputs_and_targets_of_a_task_go_together(task: Task, example: Example, targets: Any) -> None:
    task.check(example.outputs, targets)
    task.check(example.outputs)
    with pytest.raises(InputError, match="the network returns"):
        task.check("words")


@pytest.mark.parametrize("kind", ["loss", "training_loss", "divergence", "distillation_loss"])
def test_losses_are_numbers_that_have_a_gradient(task: Task, example: Example, targets: Any, kind: str) -> None:
    outputs = with_gradients(example.outputs)
    other = example.teacher if "di" in kind else targets
    settings = [SETTINGS] if "_" in kind else []
    loss = getattr(task, kind)(outputs, other, *settings)
    assert loss.shape == () and loss.isfinite() and loss > 0
    found = torch.autograd.grad(loss, floating(outputs), allow_unused=True)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in found)


def test_the_loss_is_the_mean_over_the_examples(task: Task, example: Example, targets: Any) -> None:
    losses = task.losses(example.outputs, targets)
    assert losses.shape == (BATCH,) and (losses >= 0).all()
    assert float(losses.mean()) == pytest.approx(float(task.loss(example.outputs, targets)))


def test_the_divergence_is_the_mean_over_the_examples(task: Task, example: Example) -> None:
    found = task.divergences(example.outputs, example.teacher)
    assert found.shape == (BATCH,) and (found > 0).all()
    assert float(found.mean()) == pytest.approx(float(task.divergence(example.outputs, example.teacher)))


def test_a_network_does_not_diverge_from_itself(task: Task, example: Example) -> None:
    assert task.divergences(example.teacher, example.teacher).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["losses", "divergences"])
def test_many_outputs_can_be_judged_at_a_time(task: Task, example: Example, targets: Any, kind: str) -> None:
    function: Callable[[Any, Any], Tensor] = getattr(task, kind)
    other = example.teacher if kind == "divergences" else targets
    leaves = floating(example.outputs)

    def judged(changed: list[Tensor]) -> Tensor:
        given = iter(changed)
        outputs = tree_map(lambda leaf: next(given) if isinstance(leaf, Tensor) else leaf, example.outputs)
        return function(outputs, other)

    stacked = [torch.stack([leaf, 2 * leaf]) for leaf in leaves]
    found = torch.vmap(judged)(stacked)
    torch.testing.assert_close(found[0], judged(leaves))
    torch.testing.assert_close(found[1], judged([2 * leaf for leaf in leaves]))


def test_projections_are_linear_and_follow_the_generator(task: Task, example: Example) -> None:
    def projected(seed: int, outputs: Any) -> Tensor:
        return task.projection(outputs, lambda: example.teacher, torch.Generator().manual_seed(seed))

    outputs = with_gradients(example.outputs)
    gradients = torch.autograd.grad(projected(1, outputs), floating(outputs))
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)
    assert projected(1, outputs).shape == ()
    assert projected(1, outputs) == projected(1, outputs) != projected(2, outputs)
    same = sum(float((g * leaf.detach()).sum()) for g, leaf in zip(gradients, floating(outputs), strict=True))
    assert float(projected(1, outputs).detach()) == pytest.approx(same, rel=1e-4)


def test_a_network_agrees_with_itself_except_where_there_are_no_numbers(task: Task, example: Example) -> None:
    assert (task.agreement(example.teacher, example.teacher).double() == 1).all()
    found = task.agreement(example.outputs, example.teacher).double()
    assert found.shape == (BATCH,) and ((found >= 0) & (found <= 1)).all() and found.mean() < 1
    spoilt = broken(example.teacher)
    assert task.agreement(spoilt, spoilt).double()[0] == 0


def test_metrics_are_new_ones_at_every_call(task: Task, example: Example, targets: Any) -> None:
    first, second = task.metrics(), task.metrics()
    assert task.main == next(iter(first)) and all(metric.label for metric in first.values())
    for metric in first.values():
        metric.update(example.outputs, targets)
    assert all(math.isfinite(metric.compute()) for metric in first.values())
    assert not any(math.isfinite(metric.compute()) for metric in second.values())


def test_metrics_of_parts_add_up(task: Task, example: Example, targets: Any) -> None:
    whole, parts = task.metrics(), [task.metrics(), task.metrics()]
    for name, metric in whole.items():
        metric.update(example.outputs, targets)
        for mine, outputs, wanted in zip(parts, halves(example.outputs), halves(targets), strict=True):
            mine[name].update(outputs, wanted)
        for state, other in zip(parts[0][name].states(), parts[1][name].states(), strict=True):
            state += other
        assert parts[0][name].compute() == pytest.approx(metric.compute())


def test_shares_are_between_0_and_1(task: Task, example: Example, targets: Any) -> None:
    for metric in task.metrics().values():
        metric.update(example.outputs, targets)
        assert not metric.percent or 0 <= metric.compute() <= 1
        assert metric.show(0.5) == ("50.00 %" if metric.percent else "0.5")


def test_the_main_metric_is_the_mean_of_the_scores_where_there_are_any(
    task: Task, example: Example, targets: Any
) -> None:
    scores, metric = task.scores(example.outputs, targets), task.metrics()[task.main]
    metric.update(example.outputs, targets)
    assert scores is None or scores.shape == (BATCH,)
    assert scores is None or float(scores.double().mean()) == pytest.approx(metric.compute())


def test_batches_can_be_cut_and_joined(task: Task, example: Example, targets: Any) -> None:
    again = joined(halves(targets))
    assert float(task.loss(joined(halves(example.outputs)), again)) == pytest.approx(
        float(task.loss(example.outputs, targets))
    )
    chosen = take(targets, torch.tensor([3, 1]), BATCH)
    assert task.losses(take(example.outputs, torch.tensor([3, 1]), BATCH), chosen).tolist() == pytest.approx(
        task.losses(example.outputs, targets)[[3, 1]].tolist()
    )
