"""What the fine-tuning loop costs over a bare PyTorch loop: same network, loader, optimiser and precision.

    python -m tests.benchmarks.overhead [--images 2048] [--batch 128] [--width 16] [--rounds 9] [--short]

The bare loop, ours, and the bare loop once more train one epoch in turn, many times; the first round warms up. The
bare loop against itself shows how far noise goes. On a CPU the time of the process counts, so that other programs on
the machine weigh less; on an accelerator it is wall-clock time.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from accelerate import PartialState
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from compressor.recipe import FinetuneSection
from compressor.training.loop import finetune
from compressor.training.optimizer import sgd
from tests.benchmarks import short

TEMPERATURE, WEIGHT = 4.0, 0.9


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


def network(width: int) -> nn.Sequential:
    """A residual network of 14 layers for 32 x 32 images: many small layers, the hard case for a loop."""
    stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(stem, *(Block(width) for _ in range(6)), *head)


def bare(model: nn.Module, teacher: nn.Module | None, loader: DataLoader, settings: FinetuneSection) -> None:
    """One epoch, as one would write it by hand."""
    device = PartialState().device
    model.to(device).train()
    if teacher is not None:
        teacher.to(device).eval()
    optimizer = sgd(model, settings)
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        if teacher is not None:
            with torch.no_grad():
                target = F.log_softmax(teacher(images) / TEMPERATURE, 1)
            own = F.log_softmax(logits / TEMPERATURE, 1)
            divergence = F.kl_div(own, target, reduction="batchmean", log_target=True)
            loss = (1 - WEIGHT) * loss + WEIGHT * TEMPERATURE**2 * divergence
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def seconds(train: Callable[[], object]) -> float:
    """Time of one call, in seconds."""
    if PartialState().device.type == "cpu":
        started = time.process_time()
        train()
        return time.process_time() - started
    torch.accelerator.synchronize()
    started = time.perf_counter()
    train()
    torch.accelerator.synchronize()
    return time.perf_counter() - started


def measure(args: argparse.Namespace, *, distill: bool) -> dict[str, list[float]]:
    """Seconds per epoch of each loop, round by round; who begins changes with the round."""
    images, labels = torch.randn(args.images, 3, 32, 32), torch.randint(0, 10, (args.images,))
    loader = DataLoader(TensorDataset(images, labels), args.batch, shuffle=True, generator=torch.Generator())
    values = {"epochs": 1, "distill": distill, "temperature": TEMPERATURE, "distill_weight": WEIGHT}
    settings = FinetuneSection.model_validate(values)
    teacher = network(args.width).eval() if distill else None
    start = network(args.width)
    loops: list[tuple[str, Callable[..., object]]] = [("bare", bare), ("ours", finetune), ("bare again", bare)]
    times: dict[str, list[float]] = {name: [] for name, _ in loops}
    for turn in range(args.rounds + 1):
        for name, loop in loops[turn % 3 :] + loops[: turn % 3]:
            model = copy.deepcopy(start)
            took = seconds(partial(loop, model, teacher, loader, settings))
            if turn:
                times[name].append(took)
    return times


def compare(table: Table, title: str, times: dict[str, list[float]], steps: int) -> None:
    """Add a row per loop: milliseconds a step, and what it takes more than the bare loop of the same round."""
    for name, own in times.items():
        more = [100 * (b / a - 1) for a, b in zip(times["bare"], own, strict=True)]
        low, _, high = statistics.quantiles(more, n=4)
        spread = () if name == "bare" else (f"{statistics.median(more):+.1f} %", f"{low:+.1f} to {high:+.1f} %")
        table.add_row(title, name, f"{1000 * statistics.median(own) / steps:.2f}", *spread)
    table.add_section()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("images", 2048), ("batch", 128), ("width", 16), ("rounds", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = short.parse(parser, images=512, width=8, rounds=3)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device, steps = PartialState().device, -(-args.images // args.batch)
    table = Table(title=f"one epoch of {steps} steps on {device}, {args.rounds} rounds")
    for column in ("loss", "loop", "ms a step", "overhead (median)", "middle half"):
        table.add_column(column, justify="left" if column in ("loss", "loop") else "right")
    for title, distill in (("labels", False), ("distillation", True)):
        compare(table, title, measure(args, distill=distill), steps)
    Console().print(table)


if __name__ == "__main__":
    main()
