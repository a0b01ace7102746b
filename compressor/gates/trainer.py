"""One trainer for all gates, on the loop that fine-tunes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from compressor.budget.allocate import Budget
from compressor.gates.base import Gate
from compressor.gates.budget import ExpectedCost, Fixed, Lagrangian
from compressor.gates.course import Course, Phases
from compressor.gates.history import GateEpoch
from compressor.gates.network import Gated
from compressor.gates.optimizer import optimizer_of
from compressor.gates.ranking import logits_of, rankings_of
from compressor.gates.settings import GateSettings, MakeGate
from compressor.recipe import FinetuneSection
from compressor.selection.base import Ranking
from compressor.structure.groups import Groups
from compressor.structure.tensors import duplicate
from compressor.tasks import DEFAULT, Task
from compressor.training.history import History, Progress
from compressor.training.length import count_batches
from compressor.training.loop import fit
from compressor.training.objective import Objective
from compressor.training.trainer import Batch

UNLIKE_FINETUNING = {"compile": False, "schedule": "constant"}
"""What a step does changes with its number; and the learning rate falls when the final units are fine-tuned."""
AVERAGED = 0.5
"""Share of the steps with fixed gates over which the weights are averaged: they come out of a high learning rate."""


@dataclass(frozen=True)
class Learnt:
    """What gates have learnt.

    Attributes:
        model: The trained network, gates folded into its weights; the units that are not kept are not read any more.
        rankings: By the name of the group.
        movements: One per epoch.
        history: One entry per epoch.
    """

    model: nn.Module
    rankings: dict[str, Ranking]
    movements: list[GateEpoch]
    history: History


def train_gates(
    model: nn.Module,
    groups: Groups,
    loader: Iterable[Batch],
    make: MakeGate,
    options: GateSettings,
    budget: Budget,
    settings: FinetuneSection,
    *,
    first: Mapping[str, Ranking] | None = None,
    task: Task = DEFAULT,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Learnt:
    """Train a copy of a network together with gates on its units.

    Args:
        model: The dense network; left untouched, and the teacher where `settings` ask for distillation.
        groups: Its channel groups.
        loader: As in `finetune`.
        make: Makes the gates from the sizes of the groups.
        options: How they learn.
        budget: What they are to meet.
        settings: How the weights are trained, and for how many epochs.
        first: Rankings from which the gates start.
        task: What the network is for.
        seed: As in `finetune`.
        checkpoint: As in `finetune`.
        progress: As in `finetune`.

    Raises:
        InputError: The gates close everything or nothing, or what `finetune` raises.
    """
    torch.manual_seed(seed)
    settings = settings.model_copy(update=UNLIKE_FINETUNING | {"average": AVERAGED * options.harden})
    gate = make([group.size for group in groups])
    if first is not None:
        gate.start(logits_of(groups, first, budget.widths(groups, first)))
    phases = Phases.of(count_batches(loader), settings.epochs, options.warmup, options.harden)
    course = _course(duplicate(model), groups, gate, options, budget, phases)
    history = fit(
        course,
        optimizer_of(course, settings),
        loader,
        settings,
        teacher=model,
        task=task,
        objective=partial(_Penalised, course),
        identity={"gate": gate.name, "options": options.model_dump(mode="json"), "share": budget.share},
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
    )
    trained = course.finish()
    return Learnt(trained, rankings_of(groups, course.average), _movements(groups, course.movement), history)


class _Penalised(Objective):
    """What fine-tuning minimises, and the penalty of the gates."""

    def __init__(
        self, course: Course, task: Task, teacher: nn.Module | None, settings: FinetuneSection, accelerator: Accelerator
    ) -> None:
        super().__init__(task, teacher, settings, accelerator)
        self.course = course

    def __call__(self, outputs: Any, inputs: Any, targets: Any) -> Tensor:
        return super().__call__(outputs, inputs, targets) + self.course.penalty


def _course(
    model: nn.Module, groups: Groups, gate: Gate, options: GateSettings, budget: Budget, phases: Phases
) -> Course:
    gated, cost = Gated(model, groups), ExpectedCost(groups, budget.cost)
    gate.attach(model, groups, cost)
    price = Lagrangian(phases.learning) if options.price is None else Fixed(options.price)
    return Course(gated, gate, cost, price, budget.share, phases, partial(_choose, groups, budget))


def _choose(groups: Groups, budget: Budget, logits: Tensor) -> Tensor:
    """1 for the units that are kept when the budget is met by ranking the logits."""
    rankings = rankings_of(groups, logits)
    widths, parts = budget.widths(groups, rankings), []
    for group in groups:
        kept = logits.new_zeros(group.size)
        kept[list(rankings[group.name].order[: widths[group.name]])] = 1
        parts.append(kept)
    return torch.cat(parts)


def _movements(groups: Groups, recorded: Tensor) -> list[GateEpoch]:
    names, movements = [group.name for group in groups], []
    for epoch, (expected, thresholded) in enumerate(recorded.tolist(), start=1):
        whole = (round(width) for width in thresholded)
        movements.append(
            GateEpoch(epoch, dict(zip(names, expected, strict=True)), dict(zip(names, whole, strict=True)))
        )
    return movements
