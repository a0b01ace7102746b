"""One epoch of fine-tuning after another."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.errors import InputError
from compressor.recipe import FinetuneSection
from compressor.training.distillation import distillation_loss
from compressor.training.history import Epoch, Progress
from compressor.training.meter import Meter
from compressor.training.optimizer import learning_rate
from compressor.training.schedules.base import Schedule

Batch = Sequence[Tensor]
SECONDS_BETWEEN_REPORTS = 0.25


@dataclass
class Trainer:
    """A network, what it learns from, and how; model, loader and optimiser are prepared by Accelerate.

    Attributes:
        steps: Number of batches of all epochs together.
    """

    accelerator: Accelerator
    model: nn.Module
    teacher: nn.Module | None
    loader: Iterable[Batch]
    optimizer: Optimizer
    schedule: Schedule
    settings: FinetuneSection
    steps: int
    progress: Callable[[Progress], None] | None

    def __post_init__(self) -> None:
        self.batches = self.steps // self.settings.epochs
        self.done_here = 0
        self.started = self.reported = time.perf_counter()
        self.optimizer.zero_grad()

    def epoch(self, epoch: int) -> Epoch:
        """Train on every batch once.

        Args:
            epoch: Its number, from 0.

        Raises:
            InputError: The loss or the weights are no longer finite.
        """
        started = time.perf_counter()
        meter = Meter(self.accelerator.device)
        for index, batch in enumerate(self.loader, start=1):
            done = epoch * self.batches + index
            lr = learning_rate(done - 1, self.steps, self.settings, self.schedule)
            self._step(send_to_device(batch, self.accelerator.device), lr, meter)
            self.done_here += 1
            if time.perf_counter() - self.reported > SECONDS_BETWEEN_REPORTS or index == self.batches:
                self._report(meter, done, epoch)
        loss, accuracy, images = meter.total(self.accelerator)
        self._check(math.isfinite(loss) and _finite(self.model), epoch)
        seconds = time.perf_counter() - started
        return Epoch(epoch + 1, loss, accuracy, lr, seconds, images / seconds)

    def _step(self, batch: Batch, lr: float, meter: Meter) -> None:
        *inputs, labels = batch
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        logits = self.model(*inputs)
        loss = self._loss(logits, inputs, labels)
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        meter.add(loss, logits, labels)

    def _loss(self, logits: Tensor, inputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)
        if self.teacher is None:
            return loss
        with torch.no_grad(), self.accelerator.autocast():
            answers = self.teacher(*inputs)
        weight = self.settings.distill_weight
        return (1 - weight) * loss + weight * distillation_loss(logits, answers, self.settings.temperature)

    def _report(self, meter: Meter, done: int, epoch: int) -> None:
        loss, accuracy = meter.read()
        self._check(math.isfinite(loss), epoch)
        self.reported = time.perf_counter()
        if self.progress and self.accelerator.is_main_process:
            left = (self.reported - self.started) / self.done_here * (self.steps - done)
            self.progress(Progress(done, self.steps, epoch + 1, self.settings.epochs, loss, accuracy, left))

    def _check(self, finite: bool, epoch: int) -> None:
        if not finite:
            raise InputError(
                f"training diverged in epoch {epoch + 1}: loss or weights are no longer finite",
                where="finetune.lr",
                cure=f"lower finetune.lr (now {self.settings.lr:g}), for example to {self.settings.lr / 10:g}",
            )


def _finite(model: nn.Module) -> bool:
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
