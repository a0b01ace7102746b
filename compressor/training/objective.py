"""What fine-tuning minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from compressor.recipe import FinetuneSection
from compressor.training.distillation import distillation_loss
from compressor.training.features import Maps, attention_loss


@dataclass
class Objective:
    """Cross-entropy with the labels, mixed with the divergence from a teacher where there is one, and its features.

    Attributes:
        teacher: A network in evaluation mode on the accelerator's device, or None.
        settings: The weights of both, the temperature and the label smoothing.
        accelerator: Whose precision the teacher uses as well.
        own, target: The maps of network and teacher, as `stage_maps` gives them, where features are compared.
    """

    teacher: nn.Module | None
    settings: FinetuneSection
    accelerator: Accelerator
    own: Maps = field(default_factory=dict)
    target: Maps = field(default_factory=dict)

    def __call__(self, logits: Tensor, inputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            logits: Answers of the network, (batch, classes).
            inputs: What the network was given.
            labels: Class numbers, (batch,).
        """
        loss = F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)
        if self.teacher is None:
            return loss
        with torch.no_grad(), self.accelerator.autocast():
            answers = self.teacher(*inputs)
        weight = self.settings.distill_weight
        loss = (1 - weight) * loss + weight * distillation_loss(logits, answers, self.settings.temperature)
        if self.settings.distill_features:
            loss = loss + self.settings.distill_features * attention_loss(self.own, self.target)
        return loss
