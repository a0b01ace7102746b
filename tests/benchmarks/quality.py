"""Accuracy at 2.0x measured, before and after an epoch of fine-tuning, next to torch-pruning at the same speed-up.

    python -m tests.benchmarks.quality --data IMAGES --checkpoints DIR --runs DIR [--only resnet20 ...] [--peers L2 ...]
    python -m tests.benchmarks.quality --short

Networks and folders are those of `tests.benchmarks.latency`. For every importance of torch-pruning, spread uniformly
and globally, the share of channels that it removes is found by bisection on the measured speed-up; then it has the same
epoch, with the same distillation, as ours. Results of runs are kept under --runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

import compressor
import exporters
from compressor.pipeline.context import RunContext
from compressor.pipeline.store import Stages
from compressor.recipe import load_recipe
from compressor.report import Report
from compressor.report.schema import Speedup
from compressor.support.progress import Journal
from compressor.tasks import evaluate
from compressor.training.loop import finetune
from tests.benchmarks import latency, peers, short

NETWORKS = ("resnet20", "resnet56", "mobilenet_v2")
BISECTIONS = 7


class Contest:
    """A network at a measured speed-up, and what others make of it there.

    Args:
        run: Of our recipe.
        target: The speed-up.
        folder: For files.
        seconds: How long a candidate is measured.
        bisections: How often the share that is removed is halved in.
    """

    def __init__(
        self, run: RunContext, target: float, folder: Path, seconds: float, bisections: int = BISECTIONS
    ) -> None:
        self.run, self.target, self.seconds, self.bisections = run, target, seconds, bisections
        self.files = [folder / "dense.onnx", folder / "peer.onnx"]
        self.model = run.loaded.model
        run.export_plain(self.model, self.files[0])
        (images, *_), labels = run.calibration
        assert labels is not None
        self.grads, self.example = peers.gradients(self.model, images[0], labels[0]), images[0][:1]

    def enter(self, importance: str, spread: str) -> tuple[Speedup, list[float]]:
        """What an importance reaches: its speed-up, and top-1 before and after the epoch."""
        model, speedup = self._at_target(importance, spread == "global")
        before = self._accuracy(model)
        assert self.run.data.train is not None
        finetune(model, self.model, self.run.data.train, self.run.recipe.finetune, seed=self.run.recipe.seed)
        return speedup, [before, self._accuracy(model)]

    def _at_target(self, importance: str, spread: bool) -> tuple[nn.Module, Speedup]:
        """The largest network that is as fast as the target; else the fastest one."""
        cut = partial(peers.cut, self.model, self.run.loaded.groups, self.example, peers.PEERS[importance], self.grads)
        low, high, found = 0.0, 0.95, list[tuple[nn.Module, Speedup]]()
        for _ in range(self.bisections):
            middle = (low + high) / 2
            model = cut(middle, spread=spread)
            found.append((model, self._measured(model)))
            low, high = (low, middle) if found[-1][1].median >= self.target else (middle, high)
        return max(found, key=lambda entry: (entry[1].median >= self.target, -abs(entry[1].median - self.target)))

    def _measured(self, model: nn.Module) -> Speedup:
        self.run.export_plain(model, self.files[1])
        found = exporters.benchmark(self.files, min_seconds=self.seconds, memory=False).speedup
        assert found is not None
        return Speedup(median=found.median, low=found.low, high=found.high)

    def _accuracy(self, model: nn.Module) -> float:
        assert self.run.data.validation is not None
        return evaluate(model, self.run.data.validation).main


def _row(name: str, tool: str, speedup: Speedup, accuracies: Sequence[float]) -> str:
    span = f"{speedup.median:.2f} ({speedup.low:.2f} to {speedup.high:.2f})"
    return f"| {name} | {tool} | {span} | {' | '.join(f'{100 * a:.2f}' for a in accuracies)} |"


def _compete(
    name: str, run: RunContext, report: Report, args: argparse.Namespace, bisections: int = BISECTIONS
) -> None:
    """Print our row, and one for every importance of the others."""
    ours = [network.accuracy or 0.0 for network in (report.pruned, report.compact)]
    tool, speedup = f"compressor (dense: {100 * (report.dense.accuracy or 0):.2f})", report.benchmarks[0].speedup
    print(_row(name, tool, speedup, ours), flush=True)
    contest = Contest(run, speedup.median, args.runs / name, args.seconds, bisections)
    for importance in args.peers:
        for spread in ("uniform", "global"):
            found = contest.enter(importance, spread)
            print(_row(name, f"torch-pruning {importance}, {spread}", *found), flush=True)


def _short(args: argparse.Namespace) -> None:
    """At the speed-up that half of the multiply-adds gives: nothing is profiled for it."""
    path, overrides = short.recipe()
    overrides = [*overrides, "finetune.epochs=1", "compress.target={macs: 0.5}", "compress.multiple_of=4"]
    report = compressor.compress(path, args.runs / "quality", overrides, fresh=True)
    with Stages(args.runs / "quality") as stages:
        journal = Journal(args.runs / "quality" / "log.txt", quiet=True)
        run = RunContext(load_recipe(path, overrides), path.parent, stages, journal)
        _compete("quality", run, report, args, bisections=3)


def main() -> None:
    """Print a row per network and tool."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for flag in ("--data", "--checkpoints", "--runs"):
        parser.add_argument(flag, type=Path, required=not short.asked)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--peers", nargs="*", choices=peers.PEERS, default=["L2", "BN scale", "Taylor", "LAMP"])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = short.parse(parser, runs=short.FOLDER, peers=["L2"], seconds=0.5)
    args.runs.mkdir(parents=True, exist_ok=True)
    if args.short:
        return _short(args)
    overrides = ["finetune.epochs=1", f"compress.calibration.images={args.images}"]
    print("| network | tool | measured (95 %) | top-1, before training | after an epoch |\n|" + " --- |" * 5)
    for name in args.only:
        report = compressor.compress(latency.recipe(args, name), args.runs / name, overrides)
        _compete(name, latency.run_of(args, name, overrides), report, args)


if __name__ == "__main__":
    main()
