"""What learned gates are worth at an equal number of epochs, and what a step with gates costs.

    python -m tests.benchmarks.gates --data DIR --resnet20 FILE [--images 50000] [--seeds 3] [--parts accuracy steps]
        [--short]

DIR holds CIFAR-10 as train/<class>/*.jpg and val/<class>/*.jpg. Every row trains three epochs in all: with gates two
while they learn and one after the cut, otherwise three after the cut. A row that `--log` holds already is not repeated.

Times of steps are those of the process on one thread, so that other programs on the machine weigh less.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compressor.budget.allocate import Budget
from compressor.budget.costs.macs import Macs
from compressor.data import load_data
from compressor.data.calibration import calibration_batches
from compressor.gates.base import Gate
from compressor.gates.settings import read_gate
from compressor.gates.trainer import train_gates
from compressor.pipeline.loading import load_model
from compressor.recipe import FinetuneSection, load_recipe
from compressor.refit import refit
from compressor.selection.base import Calibration, Method, Ranking
from compressor.structure import Plan, find_groups, shrink
from compressor.support import plugins
from compressor.tasks import agreement, evaluate
from compressor.training.loop import finetune
from tests.benchmarks import short
from tests.benchmarks.overhead import network

RECIPE = Path(__file__).parents[2] / "samples" / "cifar10-resnet" / "recipe-resnet20.yaml"
TARGET, EPOCHS, CALIBRATION, LR = 0.5, 3, 1024, 0.02
KEY = ("title", "seed", "images", "batch")


@dataclass(frozen=True)
class Entry:
    """A row of the table: a selection method or a gate, and how it is used."""

    title: str
    method: str
    options: dict[str, Any]
    refit: bool = True
    learning: int = 0


def entries() -> list[Entry]:
    """All rows."""
    gates = {name: Entry(name, name, {}, learning=2) for name in plugins.discover("compressor.gates", Gate)}
    variants = [
        Entry("dep_l0, backward", "dep_l0", {"order": "backward"}, learning=2),
        Entry("dep_l0, residual", "dep_l0", {"residual": True}, learning=2),
        *(
            Entry(f"{name}, init: imitation", name, {"init": "imitation"}, learning=2)
            for name in ("l0_hc", "dep_l0", "gumbel", "dsc")
        ),
    ]
    selection = [
        Entry("magnitude, no refit", "magnitude", {}, refit=False),
        Entry("magnitude", "magnitude", {}),
        Entry("imitation", "imitation", {}),
    ]
    return [*selection, *gates.values(), *variants]


class Problem:
    """The trained network and its data."""

    def __init__(self, args: argparse.Namespace, root: Path, seed: int) -> None:
        overrides = (
            f"model.checkpoint={args.resnet20}",
            f"data.root={root}",
            f"data.batch_size={args.batch}",
            f"seed={seed}",
        )
        self.recipe = load_recipe(RECIPE, overrides)
        subject = load_model(self.recipe, RECIPE.parent)
        self.model, self.groups, self.seed = subject.model, subject.groups, seed
        self.data = load_data(self.recipe.data, self.recipe.model.input, seed)
        self.budget = Budget(Macs(self.model, self.groups), TARGET)
        self.rankings: dict[str, dict[str, Ranking]] = {}
        self.images, self.labels = calibration_batches(self.data, CALIBRATION, 128, seed)

    def rank(self, name: str) -> dict[str, Ranking]:
        if name not in self.rankings:
            method = plugins.discover("compressor.selection.methods", Method)[name]()
            given = Calibration(self.model, self.groups, self.images, self.labels, self.seed)
            self.rankings[name] = method.rank(given)
        return self.rankings[name]

    def run(self, entry: Entry) -> dict[str, float]:
        """Share of the cost, and accuracies: as the gates left the network, after the cut, after fine-tuning."""
        training = FinetuneSection.model_validate({"epochs": EPOCHS, "lr": LR})
        model, loader = self.model, self.data.train or ()
        if entry.learning:
            section = self.recipe.compress.model_copy(update={"method": entry.method, "options": entry.options})
            make, options = read_gate(section)
            first = self.rank(options.init) if options.init != "open" else None
            settings = training.model_copy(update={"epochs": entry.learning})
            learnt = train_gates(
                model, self.groups, loader, make, options, self.budget, settings, first=first, seed=self.seed
            )
            model, rankings = learnt.model, learnt.rankings
        else:
            rankings = self.rank(entry.method)
        widths = self.budget.widths(self.groups, rankings)
        plan = Plan.of(self.groups, {name: rankings[name].order[:width] for name, width in widths.items()})
        small, trained = shrink(model, plan), 0.0
        if entry.refit:
            fitted, _ = refit(self.model, plan, self.images, groups=self.groups, seed=self.seed)
            trained = self.accuracy(small) if entry.learning else 0.0
            small = self.nearer(small, shrink(fitted, plan)) if entry.learning else shrink(fitted, plan)
        before = self.accuracy(small)
        settings = training.model_copy(update={"epochs": EPOCHS - entry.learning})
        finetune(small, self.model, loader, settings, seed=self.seed)
        left = self.budget.cost.total(widths) / self.budget.cost.dense
        return {"share": left, "trained": trained, "before": before, "after": self.accuracy(small)}

    def nearer(self, *networks: nn.Module) -> nn.Module:
        """The network that answers more often as the dense one does, as a run chooses it."""
        others, _ = calibration_batches(self.data, CALIBRATION, 128, self.seed + 1)
        return max(networks, key=lambda network: agreement(network, self.model, others))

    def accuracy(self, model: nn.Module) -> float:
        assert self.data.validation is not None
        return 100 * evaluate(model, self.data.validation).main


def subset(data: Path, images: int, folder: Path) -> Path:
    """A folder with as many training images of each class, links to the originals."""
    (folder / "val").symlink_to((data / "val").resolve())
    classes = sorted(path for path in (data / "train").iterdir() if path.is_dir())
    for source in classes:
        target = folder / "train" / source.name
        target.mkdir(parents=True)
        for path in sorted(source.iterdir())[: images // len(classes)]:
            (target / path.name).symlink_to(path.resolve())
    return folder


def measure_accuracy(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run every row for every seed; rows that the log holds come from there."""
    known = [json.loads(line) for line in args.log.read_text().splitlines()] if args.log.exists() else []
    done = {tuple(row[name] for name in KEY): row for row in known}
    with TemporaryDirectory() as folder:
        root = subset(args.data, args.images, Path(folder))
        for seed in range(args.seeds):
            problem = Problem(args, root, seed)
            for entry in entries():
                if args.only and entry.title not in args.only:
                    continue
                key = (entry.title, seed, args.images, args.batch)
                if key not in done:
                    started = time.perf_counter()
                    done[key] = dict(zip(KEY, key, strict=True)) | problem.run(entry)
                    with args.log.open("a") as log:
                        log.write(json.dumps(done[key]) + "\n")
                    print(done[key], f"{time.perf_counter() - started:.0f} s", flush=True)
                yield done[key]


def accuracy_table(rows: Iterable[dict[str, Any]]) -> Table:
    """Mean and spread over the seeds, a row per entry."""
    table = Table(title="top-1 at half of the multiply-adds")
    for column in ("method", "MACs kept", "after the cut", "after three epochs in all", "seeds"):
        table.add_column(column)
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["title"], []).append(row)
    for title, own in grouped.items():
        shares = [row["share"] for row in own]
        kept = f"{100 * min(shares):.2f} to {100 * max(shares):.2f} %"
        table.add_row(title, kept, *(spread([row[key] for row in own]) for key in ("before", "after")), str(len(own)))
    return table


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


# what a step costs


def step_table(rounds: int, images: int = 1024, batch: int = 128) -> Table:
    """Time of an epoch with each gate, relative to plain training of the same network in the same round."""
    inputs, labels = torch.randn(images, 3, 32, 32), torch.randint(0, 10, (images,))
    loader = DataLoader(TensorDataset(inputs, labels), batch, shuffle=True, generator=torch.Generator())
    settings = FinetuneSection.model_validate({"epochs": 1, "lr": 1e-4, "distill": False})
    start = network(16)
    groups = find_groups(start, inputs[:2])
    names = list(plugins.discover("compressor.gates", Gate))
    runs: dict[str, Callable[[], object]] = {"plain": lambda: finetune(copy.deepcopy(start), None, loader, settings)}
    budget = Budget(Macs(start, groups), TARGET)
    for name in names:
        recipe = load_recipe(RECIPE).compress.model_copy(update={"method": name})
        make, options = read_gate(recipe)
        runs[name] = partial(train_gates, start, groups, loader, make, options, budget, settings)
    times: dict[str, list[float]] = {name: [] for name in [*runs, "plain again"]}
    for turn in range(rounds + 1):
        for name in times:
            began = time.process_time()
            runs[name.removesuffix(" again")]()
            if turn:
                times[name].append(time.process_time() - began)
    table = Table(title=f"an epoch of {images // batch} steps with gates, relative to one without, {rounds} rounds")
    for column in ("gate", "median", "middle half"):
        table.add_column(column)
    for name, own in times.items():
        ratios = [ours / plain for ours, plain in zip(own, times["plain"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        table.add_row(name, f"{statistics.median(ratios):.2f}", f"{low:.2f} to {high:.2f}")
    return table


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--resnet20", type=Path)
    parser.add_argument("--images", type=int, default=50_000, help="training images")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", help="titles of rows")
    parser.add_argument("--log", type=Path, default=Path("gates.jsonl"))
    parser.add_argument("--parts", nargs="+", choices=("accuracy", "steps"), default=("accuracy", "steps"))
    args = short.parse(parser, parts=("steps",), rounds=2)
    torch.set_num_threads(1)
    if "accuracy" in args.parts:
        Console().print(accuracy_table(list(measure_accuracy(args))))
    if "steps" in args.parts:
        Console().print(step_table(args.rounds, *((512, 64) if args.short else ())))


if __name__ == "__main__":
    main()
