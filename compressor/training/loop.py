"""The fine-tuning loop, on Hugging Face Accelerate: the same code on a CPU, a GPU, or many processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn

from compressor import plugins
from compressor.errors import InputError
from compressor.recipe import FinetuneSection
from compressor.training.checkpoint import Checkpoint
from compressor.training.history import History, Progress
from compressor.training.objective import Objective
from compressor.training.optimizer import sgd
from compressor.training.order import Order
from compressor.training.schedules.base import Schedule
from compressor.training.trainer import Batch, Trainer


def finetune(
    model: nn.Module,
    teacher: nn.Module | None,
    loader: Iterable[Batch],
    settings: FinetuneSection,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> History:
    """Train `model` in place. It comes back on its device and in its mode, as does the teacher.

    Args:
        model: The network to train; its output is logits, (batch, classes).
        teacher: The dense network to learn from, in evaluation mode; None trains on the labels alone.
        loader: Batches (input, ..., labels), again at every pass, with a length. Its batch size is that of all
            processes together. Its random choices must come from its `generator` or from the global ones.
        settings: The recipe's section `finetune`.
        seed: Decides the order of the images and every other random choice; the global generators are seeded with it.
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
    schedule = plugins.find("compressor.training.schedules", Schedule, settings.schedule, where="finetune.schedule")()
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(split_batches=True))
    teacher = teacher if settings.distill else None
    with _borrowed(model, accelerator.device, training=True), _borrowed(teacher, accelerator.device, training=False):
        shell, optimizer, shard = accelerator.prepare(_Shell(model), sgd(model, settings), loader)
        batches = _length(shard)
        identity = {"seed": seed, "batches": batches, "settings": settings.model_dump(mode="json")}
        return Trainer(
            accelerator,
            shell,
            Objective(teacher, settings, accelerator),
            Order(loader, shard, seed),
            batches,
            optimizer,
            schedule,
            settings,
            Checkpoint(checkpoint, identity) if checkpoint else None,
            progress,
        ).train()


class _Shell(nn.Module):
    """What Accelerate wraps and marks, so that the network inside stays as it was."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(*inputs)


@contextmanager
def _borrowed(model: nn.Module | None, device: torch.device, *, training: bool) -> Iterator[None]:
    """Move a network to a device and a mode, and back at the end, module by module."""
    if model is None:
        yield
        return
    home = next(model.parameters()).device
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.to(device).train(training)
        yield
    finally:
        model.to(home)
        for module, mode in modes:
            module.training = mode


def _length(loader: Iterable[Batch]) -> int:
    try:
        batches = len(loader)  # type: ignore[arg-type]
    except TypeError as error:
        cure = "return a loader with __len__, the number of its batches"
        raise InputError("the training loader has no length", where="data.source", cure=cure) from error
    if batches == 0:
        raise InputError("there is no training batch", where="data", cure="lower data.batch_size or add images")
    return batches
