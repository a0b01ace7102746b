"""Classification: one class for each input, by the largest of its scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.errors import InputError
from compressor.recipe import FinetuneSection
from compressor.support.batches import floating
from compressor.tasks import softmax
from compressor.tasks.base import Task
from compressor.tasks.metrics import Mean, Metric

BEST = 5
"""Classes among which the right one counts for `top5`."""


class Classification(Task):
    """Outputs are logits, (batch, classes); targets are class numbers, (batch,). The loss is the cross-entropy."""

    name: ClassVar[str] = "classification"
    summary: ClassVar[str] = "one class for each input: cross-entropy, KL divergence, top-1"
    batch: ClassVar[str] = "(input, …, labels)"
    divergence_label: ClassVar[str] = "KL divergence"
    agreement_label: ClassVar[str] = "same top-1 as dense"

    def is_batch(self, batch: Any) -> bool:
        return super().is_batch(batch) and isinstance(self.split(batch)[1], Tensor)

    def check(self, outputs: Any, targets: Any = None) -> None:
        """Refuse outputs that are no logits, and targets that are not a class number for each."""
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise InputError(
                f"the network returns {shape}, not [batch, classes]",
                where="model.builder",
                cure="let the builder return a network for classification",
            )
        if targets is not None:
            _check_labels(targets, outputs)

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def losses(self, outputs: Any, targets: Any) -> Tensor:
        """The cross-entropy of each example, (batch,), by the first output."""
        return softmax.per_example(F.cross_entropy(floating(outputs)[0], targets, reduction="none"))

    def training_loss(self, outputs: Any, targets: Any, settings: FinetuneSection) -> Tensor:
        return F.cross_entropy(outputs, targets, label_smoothing=settings.label_smoothing)

    def divergence(self, outputs: Any, teacher: Any) -> Tensor:
        """The KL divergence from the teacher, averaged over the batch."""
        return self.divergences(outputs, teacher).mean()

    def divergences(self, outputs: Any, teacher: Any) -> Tensor:
        return softmax.divergences(outputs, teacher)

    def distillation_loss(self, outputs: Any, teacher: Any, settings: FinetuneSection) -> Tensor:
        """The KL divergence of the answers softened by `finetune.temperature`, times its square."""
        return softmax.distillation_loss(outputs, teacher, settings.temperature)

    def projection(self, outputs: Any, teacher: Callable[[], Any], generator: torch.Generator) -> Tensor:
        return softmax.projection(outputs, generator)

    def agreement(self, outputs: Any, teacher: Any) -> Tensor:
        """Whether both networks choose the same class for each example, (batch,)."""
        finite = outputs.isfinite().all(1) & teacher.isfinite().all(1)
        return (outputs.argmax(1) == teacher.argmax(1)) & finite

    def metrics(self) -> dict[str, Metric]:
        """Top-1 and top-5 accuracy, and the cross-entropy. Outputs that are no finite numbers are wrong answers."""
        return {
            "accuracy": Mean(partial(_hits, 1), "top-1"),
            "top5": Mean(partial(_hits, BEST), "top-5"),
            "loss": Mean(_losses, "cross-entropy", higher_is_better=False, percent=False),
        }

    def scores(self, outputs: Any, targets: Any) -> Tensor:
        """Which answers are right, (batch,)."""
        return (outputs.argmax(1) == targets) & outputs.isfinite().all(1)


DEFAULT: Task = Classification()
"""What a network is for where nothing is said."""


def _check_labels(labels: Any, logits: Tensor) -> None:
    if not isinstance(labels, Tensor) or labels.shape != logits.shape[:1] or labels.is_floating_point():
        what = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        raise InputError(
            f"labels are {what}, not a class number for each of {len(logits)} images",
            where="data.source",
            cure="give batches (input, …, labels) with integer labels of shape [batch]",
        )
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= logits.shape[1]:
        raise InputError(
            f"there is a label {low if low < 0 else high}, but the network has classes 0 to {logits.shape[1] - 1}",
            where="data",
            cure="make the network's number of classes (model.args) that of the data",
        )


def _hits(most: int, logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the label of each example is among so many best classes, (batch,)."""
    best = logits.topk(min(BEST, logits.shape[1])).indices[:, :most]
    return ((best == labels[:, None]) & logits.isfinite().all(1, keepdim=True)).any(1)


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, reduction="none")
