"""What a network costs and how good it is, as some stages write it down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from compressor.budget.costs.measure import measure_cost
from compressor.pipeline.context import RunContext
from compressor.report.schema import Quality
from compressor.support.files import read_json, write_json
from compressor.tasks import Task, agreement, as_keys, evaluate

QUALITY = "quality.json"


def assess(context: RunContext, model: nn.Module, directory: Path, name: str, *, together: bool = False) -> None:
    """Write down cost and metrics; without labels, the agreement with the dense network.

    With `together`, all processes of the run do this, each for its part of the images.
    """
    cost = measure_cost(model, context.loaded.inputs)
    found: dict[str, Any] = {"params": cost.params, "macs": cost.macs}
    if context.data.validation is None:
        found["agreement"] = agreement(model, context.loaded.model, context.others, context.task)
    else:
        with context.journal.bar(f"evaluate ({name})") as advance:
            quality = evaluate(model, context.data.validation, context.task, progress=advance, together=together)
        found |= as_keys(quality.metrics)
        main = context.task.metrics()[context.task.main]
        context.journal.say(f"{name}: {main.label} {main.show(quality.main)}")
    write_json(directory / QUALITY, found)


def read_quality(directory: Path) -> dict[str, Any]:
    """Return what `assess` wrote, by the names of the report."""
    found: dict[str, Any] = read_json(directory / QUALITY)
    return found


def quality_of(task: Task) -> Quality:
    """Return how the quality of a task's networks is read."""
    main = task.metrics()[task.main]
    return Quality(
        metric=task.main,
        label=main.label,
        higher_is_better=main.higher_is_better,
        percent=main.percent,
        divergence=task.divergence_label,
        agreement=task.agreement_label,
    )
