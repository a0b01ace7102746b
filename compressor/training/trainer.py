"""One epoch of fine-tuning after another, from wherever an earlier process was interrupted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from compressor.errors import InputError
from compressor.recipe import FinetuneSection
from compressor.support import distributed
from compressor.support.batches import size_of
from compressor.support.signals import Interruption
from compressor.training.average import Average, floating
from compressor.training.best import Best
from compressor.training.checkpoint import Checkpoint
from compressor.training.history import Epoch, History, Progress
from compressor.training.meter import Meter
from compressor.training.objective import Objective
from compressor.training.optimizer import learning_rate
from compressor.training.order import Order
from compressor.training.schedules.base import Schedule

Batch = Any
"""What a loader gives, with targets, as the task splits it."""
SECONDS_BETWEEN_REPORTS = 0.25


@dataclass
class Trainer:
    """A network, what it learns from, and how; model and optimiser are prepared by Accelerate.

    Attributes:
        batches: Number of batches of an epoch.
        best: Chooses what the network ends with; None takes the last weights.
        checkpoint: Where the state is kept; None keeps none.
    """

    accelerator: Accelerator
    model: nn.Module
    objective: Objective
    order: Order
    batches: int
    optimizer: Optimizer
    schedule: Schedule
    settings: FinetuneSection
    best: Best | None
    checkpoint: Checkpoint | None
    progress: Callable[[Progress], None] | None

    def train(self) -> History:
        """Train all epochs that are missing.

        Raises:
            InputError: The loss or the weights are no longer finite.
            KeyboardInterrupt: A signal asked for it; the state is saved.
        """
        self.history: History = []
        self.meter, self.begin, self.seconds = self._new_meter(), 0, 0.0
        self.average = Average(self._network)
        self._restore()
        if self.best:
            self.best.begin()
        self.done_here, self.started = 0, time.perf_counter()
        self.reported = self.started
        self.optimizer.zero_grad()
        with Interruption() as self.interruption:
            try:
                while len(self.history) < self.settings.epochs:
                    self._epoch(len(self.history))
                    self._judge()
                    self._save(0)
            except RuntimeError as error:
                if self.interruption.asked:  # the signal reached a helper process of ours first
                    raise KeyboardInterrupt from error
                raise
        self.average.apply()
        if self.best:
            self.best.apply()
        return self.history

    def _new_meter(self) -> Meter:
        return Meter(self.accelerator.device, self.objective.task)

    @property
    def _steps(self) -> int:
        """Steps of an epoch: several batches make one where gradients are accumulated."""
        return -(-self.batches // self.settings.accumulate)

    @property
    def _network(self) -> nn.Module:
        network: nn.Module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return network

    def _epoch(self, epoch: int) -> None:
        started = time.perf_counter() - self.seconds
        for number, batch in self.order.batches(epoch, self.begin):
            step = epoch * self._steps + number // self.settings.accumulate
            steps = self._steps * self.settings.epochs
            lr = learning_rate(step, steps, self.settings, self.schedule)
            stepped = self._learn(self._place(batch), number, lr)
            if stepped and step >= steps - round(self.settings.average * steps):
                self.average.add()
            self.done_here += 1
            self.seconds = time.perf_counter() - started
            last = number + 1 == self.batches
            if last or time.perf_counter() - self.reported > SECONDS_BETWEEN_REPORTS:
                self._report(epoch * self.batches + number + 1, epoch, lr)
            if stepped and not last and (self.interruption.asked or (self.checkpoint and self.checkpoint.due())):
                self._save(number + 1)
        loss, metrics, images = self.meter.total(self.accelerator)
        self._check(math.isfinite(loss) and _finite(self.model), epoch)
        seconds = time.perf_counter() - started
        self.history.append(Epoch(epoch + 1, loss, metrics.get("accuracy"), lr, seconds, images / seconds, metrics))
        self.meter, self.begin, self.seconds = self._new_meter(), 0, 0.0

    def _judge(self) -> None:
        """Judge what training would end with if this were the last epoch."""
        if self.best:
            with self.average.applied():
                self.best.judge()

    def _learn(self, batch: Batch, number: int, lr: float) -> bool:
        """Learn from a batch; returns whether that was a step, or one of several batches that make one."""
        inputs, targets = self.objective.task.split(batch)
        size = self.settings.accumulate
        first = number - number % size
        together = min(size, self.batches - first)
        stepped = number + 1 == first + together
        with nullcontext() if stepped else self.accelerator.no_sync(self.model):
            outputs = self.model(*inputs)
            loss = self.objective(outputs, inputs, targets)
            self.accelerator.backward(loss / together if together > 1 else loss)
        if stepped:
            self._step(lr)
        self.meter.add(loss, outputs, targets, size_of(inputs))
        return stepped

    def _step(self, lr: float) -> None:
        if self.settings.clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _place(self, batch: Batch) -> Batch:
        batch = send_to_device(batch, self.accelerator.device)
        if not self.settings.channels_last:
            return batch
        return tree_map(_channels_last, batch)

    def _save(self, batch: int) -> None:
        """Save the state before a batch of the running epoch; end here if a signal asked for it."""
        if not self.accelerator.is_main_process:
            return
        if self.checkpoint:
            self.checkpoint.save(self._state(batch))
        if self.interruption.asked:
            raise KeyboardInterrupt

    def _state(self, batch: int) -> dict[str, Any]:
        return {
            "model": self._network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
            "average": self.average.state_dict(),
            "best": self.best.state_dict() if self.best else None,
            "meter": self.meter.state_dict(),
            "batch": batch,
            "seconds": self.seconds,
            "history": [asdict(epoch) for epoch in self.history],
        }

    def _restore(self) -> None:
        state = distributed.lead(self.checkpoint.restore) if self.checkpoint else None
        if state is not None:
            self._load(state)

    def _load(self, state: dict[str, Any]) -> None:
        self._network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.average.load_state_dict(state["average"])
        if self.best:
            self.best.load_state_dict(state["best"])
        self.meter.load_state_dict(state["meter"])
        self.begin, self.seconds = state["batch"], state["seconds"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def _report(self, done: int, epoch: int, lr: float) -> None:
        loss, metrics = self.meter.read()
        self._check(math.isfinite(loss), epoch)
        self.reported = time.perf_counter()
        if self.progress and self.accelerator.is_main_process:
            batches = self.batches * self.settings.epochs
            left = (self.reported - self.started) / self.done_here * (batches - done)
            epochs = self.settings.epochs
            self.progress(Progress(done, batches, epoch + 1, epochs, loss, metrics, lr, self.seconds, left))

    def _check(self, finite: bool, epoch: int) -> None:
        if not finite:
            lower = min(self.settings.rate / 10, 0.02)
            raise InputError(
                f"training diverged in epoch {epoch + 1}: loss or weights are no longer finite",
                where="finetune.lr",
                cure=f"lower finetune.lr (now {self.settings.rate:g}), for example to {lower:g}",
            )


def _channels_last(leaf: Any) -> Any:
    images = isinstance(leaf, Tensor) and leaf.dim() == 4
    return leaf.contiguous(memory_format=torch.channels_last) if images else leaf


def _finite(model: nn.Module) -> bool:
    return bool(torch.stack([tensor.isfinite().all() for tensor in floating(model)]).all())
