"""Tasks that are made up, and for every task a batch with what a network returns for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.tasks import Mean, Metric, Task

BATCH = 6


@dataclass(frozen=True)
class Example:
    """A batch of a task.

    Attributes:
        batch: With targets, as a loader gives it.
        outputs: What a network returns for it.
        teacher: What another network returns.
    """

    batch: Any
    outputs: Any
    teacher: Any


class Smallest(Task):
    """What a task has to say at least: several outputs, one loss, one metric that is better when it is small."""

    name = "smallest"
    summary = "two outputs, imitated by their squared errors"

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return ((outputs["value"][:, 0] - targets) ** 2).mean()

    def metrics(self) -> dict[str, Metric]:
        return {"mse": Mean(self.losses, "squared error", higher_is_better=False, percent=False)}


class Whole(Smallest):
    """A task that tells its divergence for a whole batch only, and learns from lists of mappings."""

    name = "whole"
    batch = "(input, list of boxes)"

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        losses = [(row - target["boxes"]).abs().mean() for row, target in zip(outputs["value"], targets, strict=True)]
        return torch.stack(losses).mean()

    def divergence(self, outputs: Any, teacher: Any) -> Tensor:
        return (outputs["value"] - teacher["value"]).abs().mean()


def classes() -> Example:
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    return Example([torch.randn(BATCH, 3, 4, 4), labels], torch.randn(BATCH, 4), torch.randn(BATCH, 4))


def values() -> Example:
    made = [{"value": torch.randn(BATCH, 2), "map": torch.randn(BATCH, 3, 4) * 100, "count": BATCH} for _ in range(2)]
    return Example([torch.randn(BATCH, 5), torch.randn(BATCH)], *made)


def boxes() -> Example:
    made = [{"value": torch.randn(BATCH, 4)} for _ in range(2)]
    return Example([torch.randn(BATCH, 5), [{"boxes": torch.randn(n + 1, 4)} for n in range(BATCH)]], *made)


EXAMPLES = {"classification": classes, "smallest": values, "whole": boxes}
"""Makes the example of a task, by its name; the global generator is seeded by the caller."""
