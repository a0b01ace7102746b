"""What a network costs and how good it is, as some stages write it down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from compressor.budget.costs.measure import measure_cost
from compressor.pipeline.context import RunContext
from compressor.support.files import read_json, write_json
from compressor.tasks.classification import agreement, evaluate

QUALITY = "quality.json"


def assess(context: RunContext, model: nn.Module, directory: Path, name: str, *, together: bool = False) -> None:
    """Write down cost and accuracy; without labels, the agreement with the dense network.

    With `together`, all processes of the run do this, each for its part of the images.
    """
    cost = measure_cost(model, context.loaded.inputs)
    found: dict[str, float] = {"params": cost.params, "macs": cost.macs}
    if context.data.validation is None:
        found["agreement"] = agreement(model, context.loaded.model, context.others)
    else:
        with context.journal.bar(f"evaluate ({name})") as advance:
            quality = evaluate(model, context.data.validation, progress=advance, together=together)
        found["accuracy"] = quality.accuracy
        context.journal.say(f"{name}: top-1 {100 * found['accuracy']:.2f} %")
    write_json(directory / QUALITY, found)


def read_quality(directory: Path) -> dict[str, Any]:
    """Return what `assess` wrote, by the names of the report."""
    found: dict[str, Any] = read_json(directory / QUALITY)
    return found
