"""Metrics: figures of quality that are taken batch by batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class Metric(ABC):
    """A figure of quality on labelled data. `update`, `compute` and `higher_is_better` are those of torchmetrics.

    Attributes:
        label: What it is, in a sentence: `top-1`.
        higher_is_better: Whether larger values are better.
        percent: Whether it is a share, 0 to 1, and shown in per cent.
    """

    label: str
    higher_is_better: bool = True
    percent: bool = True

    @abstractmethod
    def update(self, outputs: Any, targets: Any) -> None:
        """Count a batch; both are on the same device."""

    @abstractmethod
    def compute(self) -> float:
        """The value over everything that was counted."""

    @abstractmethod
    def states(self) -> list[Tensor]:
        """What the value is computed from, on the CPU; these tensors may be replaced by sums over all processes."""

    def show(self, value: float) -> str:
        """A value of it in words: `93.21 %`."""
        return f"{100 * value:.2f} %" if self.percent else f"{value:.4g}"


class Mean(Metric):
    """The mean of numbers that each example has by itself.

    Args:
        values: Gives the numbers, (batch,), for outputs and targets of a batch.
        label: As in `Metric`.
        higher_is_better: As in `Metric`.
        percent: As in `Metric`.
    """

    def __init__(
        self,
        values: Callable[[Any, Any], Tensor],
        label: str,
        *,
        higher_is_better: bool = True,
        percent: bool = True,
    ) -> None:
        self._values, self.label = values, label
        self.higher_is_better, self.percent = higher_is_better, percent
        self._sums = torch.zeros(2, dtype=torch.float64)

    def update(self, outputs: Any, targets: Any) -> None:
        with torch.no_grad():
            values = self._values(outputs, targets).double()
            self._sums = self._sums.to(values.device) + torch.stack([values.sum(), values.new_tensor(len(values))])

    def compute(self) -> float:
        total, count = self._sums.tolist()
        return total / count if count else float("nan")

    def states(self) -> list[Tensor]:
        self._sums = self._sums.cpu()
        return [self._sums]


def as_keys(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Metrics as `report.json` has them: by name, and the accuracy under a key of its own, as it always was."""
    accuracy = {"accuracy": metrics["accuracy"]} if "accuracy" in metrics else {}
    return accuracy | {"metrics": dict(metrics)}
