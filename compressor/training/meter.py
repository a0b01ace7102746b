"""Loss and accuracy of an epoch, summed where the network runs and read only now and then."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class Meter:
    """Sums over the images of an epoch; adding never waits for the device.

    Args:
        device: Where losses and logits are.
    """

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device)
        self._correct = torch.zeros((), device=device)
        self._images = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: its mean loss, and its logits against its labels."""
        self._loss.add_(loss.detach(), alpha=len(labels))
        self._correct.add_((logits.argmax(1) == labels).sum())
        self._images += len(labels)

    def read(self) -> tuple[float, float]:
        """Mean loss and accuracy on this process so far; waits for the device."""
        return float(self._loss) / self._images, float(self._correct) / self._images

    def state_dict(self) -> dict[str, Any]:
        """The sums of this process."""
        return {"loss": float(self._loss), "correct": float(self._correct), "images": self._images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from sums that were saved."""
        self._loss.fill_(state["loss"])
        self._correct.fill_(state["correct"])
        self._images = state["images"]

    def total(self, accelerator: Accelerator) -> tuple[float, float, int]:
        """Mean loss, accuracy and number of images over all processes."""
        sums = torch.stack([self._loss, self._correct, torch.full_like(self._loss, self._images)])
        loss, correct, images = accelerator.reduce(sums, reduction="sum").tolist()
        return loss / images, correct / images, int(images)
