"""What latency targets, tables and measurements are worth.

    python -m tests.benchmarks.latency promise    --data IMAGES --checkpoints DIR --runs DIR [--only resnet20 ...]
    python -m tests.benchmarks.latency prediction --data IMAGES --checkpoints DIR --runs DIR [--only resnet20 ...]
    python -m tests.benchmarks.latency noise      --data IMAGES --checkpoints DIR --runs DIR
    python -m tests.benchmarks.latency isolation  --data IMAGES --checkpoints DIR --runs DIR

`promise` compresses every network to every target, without training, and compares the final measurement with the
target. `prediction` draws random plans, of any widths, and compares what the table says with what their files take,
each measured against the dense file. `noise` measures a file against its copy, and against one that is about 5 %
faster. `isolation` compares the ratio that one process measures with that of processes of one file each. IMAGES is an
image folder of CIFAR-10; DIR holds the checkpoints that NETWORKS names. Results of runs are kept under --runs, so that
a command that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import yaml

import compressor
import exporters
from compressor.budget.latency import Latency
from compressor.journal import Journal
from compressor.recipe import load_recipe
from compressor.run import Run
from compressor.speed import read_cost
from compressor.stages import Stages

CIFAR = str(Path(__file__).parents[2] / "samples" / "cifar10-resnet" / "model.py")
NETWORKS = {
    "resnet20": {"builder": f"{CIFAR}:resnet20", "checkpoint": "resnet20-cifar10-jpeg.pth", "input": [3, 32, 32]},
    "resnet56": {"builder": f"{CIFAR}:resnet56", "checkpoint": "resnet56-cifar10-jpeg.pth", "input": [3, 32, 32]},
    "mobilenet_v2": {
        "builder": "torchvision.models:mobilenet_v2",
        "args": {"num_classes": 10},
        "checkpoint": "mobilenetv2-cifar10-64.pth",
        "input": [3, 64, 64],
    },
    "resnet18": {"builder": "torchvision.models:resnet18", "args": {"num_classes": 10}, "input": [3, 64, 64]},
}
TARGETS = (1.25, 1.5, 2.0, 3.0)
PLANS, REPEATS = 30, 20


def recipe(args: argparse.Namespace, name: str) -> Path:
    """Write the recipe of a network."""
    model = dict(NETWORKS[name])
    if "checkpoint" in model:
        model["checkpoint"] = str(args.checkpoints.absolute() / str(model["checkpoint"]))
    normalize = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    content = {
        "model": model,
        "data": {"source": "imagefolder", "root": str(args.data.absolute()), "normalize": normalize},
        "compress": {"target": {"speedup": 2.0}, "calibration": {"images": 256}},
        "finetune": {"epochs": 0},
    }
    path = args.runs / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def promise(args: argparse.Namespace) -> None:
    """Print a row per network and target."""
    print("| network | target | measured (95 %) | top-1, dense | top-1, no training | met |\n|" + " --- |" * 6)
    for name in args.only or NETWORKS:
        for target in TARGETS:
            overrides = [f"compress.target.speedup={target}"]
            report = compressor.compress(recipe(args, name), args.runs / name, overrides)
            speedup, rule = report.benchmarks[0].speedup, report.accept[0]
            words = "yes" if rule.passed and speedup.median <= 1.1 * target else "yes, by more" if rule.passed else "no"
            if report.speed and not report.speed.reached:
                words += ", named out of reach"
            span = f"{speedup.median:.2f} ({speedup.low:.2f} to {speedup.high:.2f})"
            accuracies = (f"{100 * (n.accuracy or 0):.1f}" for n in (report.dense, report.pruned))
            print(f"| {name} | {target} | {span} | {' | '.join(accuracies)} | {words} |", flush=True)


def isolation(args: argparse.Namespace) -> None:
    """Print the ratio of two files as one process measures it, and as processes of one file each do, in turns."""
    print("| network | one process | a process for each file | difference |\n|" + " --- |" * 4)
    for name in args.only or NETWORKS:
        run = run_of(args, name)
        files = [args.runs / f"{name}-{kind}.onnx" for kind in ("dense", "half")]
        run.export_plain(run.subject.model, files[0])
        run.export_plain(
            compressor.shrink(run.subject.model, compressor.Plan.uniform(run.subject.groups, 0.5)), files[1]
        )
        together = exporters.benchmark(files, min_seconds=10 * args.seconds, memory=False).speedup
        assert together is not None
        ratios = [_alone(files[0], args.seconds) / _alone(files[1], args.seconds) for _ in range(REPEATS)]
        apart, quartiles = statistics.median(ratios), statistics.quantiles(ratios, n=4)
        cells = [f"{together.median:.3f} ({together.low:.3f} to {together.high:.3f})"]
        cells += [f"{apart:.3f} ({quartiles[0]:.3f} to {quartiles[2]:.3f})", f"{together.median / apart - 1:+.1%}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


ALONE = """
import sys, exporters
result = exporters.benchmark([sys.argv[1]], min_seconds=float(sys.argv[2]), memory=False)
print(next(iter(result.models.values())).p50_ms)
"""


def _alone(file: Path, seconds: float) -> float:
    """The median latency of a file in a process that opens nothing else."""
    command = [sys.executable, "-c", ALONE, str(file), str(seconds)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def run_of(args: argparse.Namespace, name: str, overrides: Sequence[str] = ()) -> Run:
    """The run of a network."""
    out = args.runs / name
    with Stages(out) as stages:
        return Run(load_recipe(recipe(args, name), overrides), args.runs, stages, Journal(out / "log.txt"))


def cost_of(args: argparse.Namespace, name: str) -> tuple[Run, Latency]:
    """The run of a network, its table measured or read."""
    run = run_of(args, name)
    with run.stages:
        cost = read_cost(run.planner.profiled, run.subject)
    assert isinstance(cost, Latency)
    return run, cost


def prediction(args: argparse.Namespace) -> None:
    """Print a row per network: how far the table was off."""
    print("| network | groups | held-out error of the table, p90 | random plans: median | p90 | within 5 % |")
    print("|" + " --- |" * 6)
    for name in args.only or NETWORKS:
        run, cost = cost_of(args, name)
        groups, rng, errors = run.subject.groups, Random(1), list[float]()
        dense, file = args.runs / f"{name}-dense.onnx", args.runs / f"{name}-plan.onnx"
        run.export_plain(run.subject.model, dense)
        for _ in range(args.plans):
            widths = {g.name: rng.randrange(g.step, g.size + 1, g.step) for g in groups}
            plan = compressor.Plan.of(groups, {g.name: g.balanced(range(g.size))[: widths[g.name]] for g in groups})
            run.export_plain(compressor.shrink(run.subject.model, plan), file)
            found = exporters.benchmark([dense, file], min_seconds=args.seconds, memory=False).speedup
            assert found is not None
            errors.append(abs(cost.dense / cost.total(widths) / found.median - 1))
        p90 = statistics.quantiles(errors, n=10)[-1]
        within = sum(error <= 0.05 for error in errors)
        cells = f"{cost.error:.1%} | {statistics.median(errors):.1%} | {p90:.1%} | {within} of {len(errors)}"
        print(f"| {name} | {len(groups)} | {cells} |", flush=True)


def noise(args: argparse.Namespace) -> None:
    """Print how often a file is called as fast as its copy, and how often a true difference is called."""
    name = (args.only or ["resnet20"])[0]
    run, cost = cost_of(args, name)
    dense, copy, faster = (args.runs / f"{name}-{kind}.onnx" for kind in ("a", "copy", "faster"))
    run.export_plain(run.subject.model, dense)
    shutil.copyfile(dense, copy)
    group = max(run.subject.groups, key=lambda g: g.size)
    width = min(range(group.step, group.size), key=lambda w: abs(cost.total({group.name: w}) / cost.dense - 0.95))
    plan = compressor.Plan.of(run.subject.groups, {group.name: range(width)})
    run.export_plain(compressor.shrink(run.subject.model, plan), faster)
    for title, other, seconds in (("true", faster, 30.0), ("A/A", copy, args.seconds), ("A/B", faster, args.seconds)):
        count = 1 if title == "true" else REPEATS
        found = [
            exporters.benchmark([dense, other], min_seconds=seconds, seed=n, memory=False).speedup for n in range(count)
        ]
        spans = [s for s in found if s is not None]
        same = sum(s.low <= 1.0 <= s.high for s in spans)
        half = statistics.median((s.high - s.low) / 2 for s in spans)
        median = statistics.median(s.median for s in spans)
        called = sum(s.low > 1.0 for s in spans)
        print(f"{title}: median {median:.3f}, 1.0 inside {same} of {count}, faster {called}, half-width {half:.2%}")


COMMANDS = {f.__name__: f for f in (promise, prediction, noise, isolation)}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=tuple(COMMANDS))
    for flag in ("--data", "--checkpoints", "--runs"):
        parser.add_argument(flag, type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=NETWORKS)
    parser.add_argument("--plans", type=int, default=PLANS)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    COMMANDS[args.what](args)


if __name__ == "__main__":
    main()
