"""Loss and main metric of an epoch, summed where the network runs and read only now and then."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from compressor.tasks import Task


class Meter:
    """Sums over the images of an epoch; adding never waits for the device.

    Args:
        device: Where losses and outputs are.
        task: Scores the outputs. Where its main metric is no mean over examples, only the loss is counted.
    """

    def __init__(self, device: torch.device, task: Task) -> None:
        self._loss = torch.zeros((), device=device)
        self._score = torch.zeros((), device=device)
        self._images = 0
        self._task, self._main, self._scored = task, task.main, False

    def add(self, loss: Tensor, outputs: Any, targets: Any, images: int) -> None:
        """Count a batch of so many images: its mean loss, and its outputs against its targets."""
        self._loss.add_(loss.detach(), alpha=images)
        self._images += images
        with torch.no_grad():
            scores = self._task.scores(outputs, targets)
            if scores is not None:
                self._scored = True
                self._score.add_(scores.sum())

    def read(self) -> tuple[float, dict[str, float]]:
        """Mean loss, and the main metric by its name, on this process so far; waits for the device."""
        return float(self._loss) / self._images, self._named(float(self._score) / self._images)

    def state_dict(self) -> dict[str, Any]:
        """The sums of this process."""
        sums = {"loss": float(self._loss), "score": float(self._score)}
        return sums | {"images": self._images, "scored": self._scored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from sums that were saved."""
        self._loss.fill_(state["loss"])
        self._score.fill_(state["score"])
        self._images, self._scored = state["images"], state["scored"]

    def total(self, accelerator: Accelerator) -> tuple[float, dict[str, float], int]:
        """Mean loss, main metric by its name and number of images over all processes."""
        sums = torch.stack([self._loss, self._score, torch.full_like(self._loss, self._images)])
        loss, score, images = accelerator.reduce(sums, reduction="sum").tolist()
        return loss / images, self._named(score / images), int(images)

    def _named(self, score: float) -> dict[str, float]:
        return {self._main: score} if self._scored else {}
