"""What fine-tuning minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from compressor.recipe import FinetuneSection
from compressor.tasks import Task
from compressor.training.features import Maps, attention_loss


@dataclass
class Objective:
    """The task's loss, mixed with the divergence from a teacher where there is one, and its features.

    Attributes:
        task: What the network is for.
        teacher: A network in evaluation mode on the accelerator's device, or None.
        settings: The weights of both, and what the task takes from it.
        accelerator: Whose precision the teacher uses as well.
        own, target: The maps of network and teacher, as `stage_maps` gives them, where features are compared.
    """

    task: Task
    teacher: nn.Module | None
    settings: FinetuneSection
    accelerator: Accelerator
    own: Maps = field(default_factory=dict)
    target: Maps = field(default_factory=dict)

    def __call__(self, outputs: Any, inputs: Sequence[Tensor], targets: Any) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            outputs: What the network returned.
            inputs: What it was given.
            targets: What was to come out.
        """
        loss = self.task.training_loss(outputs, targets, self.settings)
        if self.teacher is None:
            return loss
        with torch.no_grad(), self.accelerator.autocast():
            wanted = self.teacher(*inputs)
        weight = self.settings.distill_weight
        loss = (1 - weight) * loss + weight * self.task.distillation_loss(outputs, wanted, self.settings)
        if self.settings.distill_features:
            loss = loss + self.settings.distill_features * attention_loss(self.own, self.target)
        return loss
