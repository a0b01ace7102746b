"""The fine-tuning loop, on Hugging Face Accelerate: the same code on a CPU, a GPU, or many processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from compressor.recipe import FinetuneSection
from compressor.support import plugins
from compressor.tasks import DEFAULT, Task
from compressor.training.accelerator import make_accelerator
from compressor.training.best import Best
from compressor.training.checkpoint import Checkpoint
from compressor.training.features import stage_maps
from compressor.training.history import History, Progress
from compressor.training.length import count_batches
from compressor.training.objective import Objective
from compressor.training.optimizer import sgd
from compressor.training.order import Order
from compressor.training.rate import with_rate
from compressor.training.schedules.base import Cut, Schedule
from compressor.training.trainer import Batch, Trainer


def finetune(
    model: nn.Module,
    teacher: nn.Module | None,
    loader: Iterable[Batch],
    settings: FinetuneSection,
    *,
    task: Task = DEFAULT,
    seed: int = 0,
    best: Best | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> History:
    """Train `model` in place. It comes back on its device and in its mode, as does the teacher.

    Args:
        model: The network to train.
        teacher: The dense network to learn from, in evaluation mode; None trains on the labels alone.
        loader: Batches with targets, as the task splits them, again at every pass, with a length. Its batch size is
            that of all processes together. Its random choices must come from its `generator` or from the global ones.
        settings: The recipe's section `finetune`; without `lr`, the rate follows from the number of steps.
        task: What the network is for.
        seed: Decides the order of the images and every other random choice; the global generators are seeded with it.
        best: Judges the network before training and after every epoch; it ends with the best weights of these. None
            leaves it with the last ones.
        checkpoint: File that keeps the state, every few seconds and when a signal ends the program; where there is
            one, training goes on from there and ends with the weights of an undisturbed run.
        progress: Told a few times a second how far training is, on the main process.

    Returns:
        One entry per epoch, those before an interruption included; empty for `epochs: 0`.

    Raises:
        InputError: The schedule is not known, the loader is empty or has no length, the loss is no longer finite, or
            `checkpoint` holds another fine-tuning.
        KeyboardInterrupt: SIGINT or SIGTERM came; the state is saved.
    """
    if settings.epochs == 0:
        return []
    settings = with_rate(settings, loader)
    return fit(
        model,
        sgd(model, settings),
        loader,
        settings,
        teacher=teacher,
        task=task,
        seed=seed,
        best=best,
        checkpoint=checkpoint,
        progress=progress,
    )


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    loader: Iterable[Batch],
    settings: FinetuneSection,
    *,
    teacher: nn.Module | None = None,
    task: Task = DEFAULT,
    objective: Callable[..., Objective] = Objective,
    identity: Mapping[str, Any] | None = None,
    seed: int = 0,
    best: Best | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> History:
    """Train whatever an optimiser has the parameters of; all else as in `finetune`.

    Args:
        model: What maps a batch to outputs.
        optimizer: Steps the parameters of `model`; its learning rate follows the schedule.
        loader: As in `finetune`.
        settings: The recipe's section `finetune`, with a rate.
        teacher: As in `finetune`.
        task: As in `finetune`.
        objective: Called with task, teacher, settings and accelerator: what is minimised.
        identity: What the result depends on besides seed, length and settings, JSON values.
        seed: As in `finetune`.
        best: As in `finetune`.
        checkpoint: As in `finetune`.
        progress: As in `finetune`.
    """
    kind = plugins.find("compressor.training.schedules", Schedule, settings.schedule, where="finetune.schedule")
    schedule = kind(Cut.between(teacher, model, settings.epochs, settings.original_epochs))
    accelerator = make_accelerator(settings, getattr(loader, "batch_size", None))
    teacher = teacher if settings.distill else None
    place = accelerator.device, torch.channels_last if settings.channels_last else torch.preserve_format
    watched = (model, teacher) if teacher is not None and settings.distill_features else (None, None)
    with (
        _borrowed(model, *place, training=True),
        _borrowed(teacher, *place, training=False),
        stage_maps(watched[0]) as own,
        stage_maps(watched[1]) as target,
    ):
        shell, prepared, shard = accelerator.prepare(_Shell(model), optimizer, loader)
        batches = count_batches(shard)
        known = {"seed": seed, "batches": batches, "settings": settings.model_dump(mode="json"), **(identity or {})}
        known["judged"] = best is not None
        minimised = objective(task, teacher, settings, accelerator)
        minimised.own, minimised.target = own, target
        return Trainer(
            accelerator,
            shell,
            minimised,
            Order(loader, shard, seed),
            batches,
            prepared if accelerator.scaler else optimizer,  # without scaling the wrapper only costs time
            schedule,
            settings,
            best,
            Checkpoint(checkpoint, known) if checkpoint else None,
            progress,
        ).train()


class _Shell(nn.Module):
    """What Accelerate wraps and marks, so that the network inside stays as it was."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> Any:
        return self.model(*inputs)


@contextmanager
def _borrowed(
    model: nn.Module | None, device: torch.device, layout: torch.memory_format, *, training: bool
) -> Iterator[None]:
    """Move a network to a device, a layout and a mode, and back at the end, module by module."""
    if model is None:
        yield
        return
    home = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.to(device=device, memory_format=layout).train(training)  # type: ignore[call-overload]
        yield
    finally:
        back = torch.preserve_format if layout == torch.preserve_format else torch.contiguous_format
        model.to(device=home, memory_format=back)  # type: ignore[call-overload]
        for module, mode in modes:
            module.training = mode
