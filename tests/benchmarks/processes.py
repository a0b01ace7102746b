"""How much faster several processes fine-tune than one: same global batch, one thread each.

    python -m tests.benchmarks.processes [--processes 2] [--images 4096] [--batch 128] [--epochs 3] [--short]

ResNet-20 with distillation on random images. Each number of processes is started by torchrun; the first epoch warms up,
the median of the others counts. The machine must have as many idle cores as there are processes.
"""

from __future__ import annotations

import argparse
import os
import runpy
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compressor.recipe import FinetuneSection
from compressor.support import distributed
from compressor.training.loop import finetune
from tests.benchmarks import short

SAMPLE = Path(__file__).parents[2] / "samples" / "cifar10-resnet" / "model.py"


def train(args: argparse.Namespace) -> None:
    """Fine-tune as one of the processes; the first prints images per second."""
    distributed.start()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    build = runpy.run_path(str(SAMPLE))["resnet20"]
    images, labels = torch.randn(args.images, 3, 32, 32), torch.randint(0, 10, (args.images,))
    loader = DataLoader(TensorDataset(images, labels), args.batch, shuffle=True, generator=torch.Generator())
    model, teacher = build(), build()
    assert isinstance(teacher, nn.Module)
    history = finetune(model, teacher.eval(), loader, FinetuneSection(epochs=args.epochs + 1))
    if distributed.leads():
        print(statistics.median(epoch.images_per_second for epoch in history[1:]))


def images_per_second(processes: int) -> float:
    """Start so many processes of this module, and return what the first one printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["-m", "tests.benchmarks.processes", "--worker", *sys.argv[1:]]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure one process and several, and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("processes", 2), ("images", 4096), ("batch", 128), ("epochs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--worker", action="store_true")
    args = short.parse(parser, images=512, epochs=1)
    if args.worker:
        train(args)
        return
    one, many = images_per_second(1), images_per_second(args.processes)
    print(f"1 process: {one:.0f} images/s; {args.processes}: {many:.0f} images/s; {many / one:.2f}x as fast")


if __name__ == "__main__":
    main()
