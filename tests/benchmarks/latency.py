"""What latency targets, tables and measurements are worth.

    python -m tests.benchmarks.latency promise    --data IMAGES --checkpoints DIR --runs DIR [--only resnet20 ...]
    python -m tests.benchmarks.latency prediction --data IMAGES --checkpoints DIR --runs DIR [--only resnet20 ...]
    python -m tests.benchmarks.latency noise      --data IMAGES --checkpoints DIR --runs DIR
    python -m tests.benchmarks.latency isolation  --data IMAGES --checkpoints DIR --runs DIR
    python -m tests.benchmarks.latency families   --runs DIR [--only resnet18 ...] [--targets 1.5 2.0] [--busy 2]
    python -m tests.benchmarks.latency again      --runs DIR

`families` asks torchvision networks at 224 x 224, with random weights and unlabelled images, for speed-ups; `again`
measures the files that it left once more, to be run when the machine is quiet. `--busy N` keeps N other processes
working meanwhile. `promise` compresses every network to every target, without training, and compares the final
measurement with the target. `prediction` draws random plans, of multiples of `--multiple-of`, and compares what the
table says with what their files take, each measured against the dense file. `noise` measures a file against its copy,
and against one that is about 5 % faster. `isolation` compares the ratio that one process measures with that of several,
one file each. IMAGES is an image folder of CIFAR-10; DIR holds the checkpoints that NETWORKS names. Results of runs
are kept under --runs, so that a command that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

import compressor
import exporters
from compressor.budget.latency.model import Latency
from compressor.errors import CompressorError
from compressor.pipeline.context import RunContext
from compressor.pipeline.stages.profile import Profile
from compressor.pipeline.store import Stages
from compressor.recipe import load_recipe
from compressor.report import Report
from compressor.support.progress import Journal
from tests.benchmarks import short
from tests.benchmarks.busy import busy

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
FAMILIES = (
    *("mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "resnet18", "resnet50"),
    *("densenet121", "regnet_y_400mf", "vit_b_32", "convnext_tiny", "squeezenet1_1"),
)
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


def families(args: argparse.Namespace) -> None:
    """Print a row per network and target: what was delivered, and what it took to get there."""
    titles = "network | target | measured (95 %) | A/A | attempts | profile, s | held-out error | plan, s | verdict"
    print(f"| {titles} |\n|" + " --- |" * 9, flush=True)
    for name in args.only or FAMILIES:
        for target in args.targets:
            try:
                report = compressor.compress(family(args, name, target), args.runs / f"{name}-{target}")
            except CompressorError as error:
                print(f"| {name} | {target} | {error} |" + " |" * 6, flush=True)
                continue
            first, speed, seconds = report.benchmarks[0], report.speed, report.seconds
            assert speed is not None and first.aa is not None
            cells = [span(first.speedup), span(first.aa), str(len(speed.attempts)), f"{seconds['profile']:.0f}"]
            cells += ["none" if speed.error is None else f"{speed.error:.1%}", f"{seconds['plan']:.0f}"]
            verdict = "met" if report.accept[0].passed else "missed"
            words = verdict if speed.reached else f"{verdict}, out of reach by name"
            print(f"| {name} | {target} | {' | '.join(cells)} | {words} |", flush=True)


def family(args: argparse.Namespace, name: str, target: float) -> Path:
    """Write the recipe of a torchvision network with random weights."""
    images = {"count": args.images, "size": 224}
    content = {
        "model": {"builder": f"torchvision.models:{name}", "input": [3, 224, 224]},
        "data": {"source": f"{Path(__file__).with_name('images.py')}:noise", "args": images, "batch_size": 16},
        "compress": {"target": {"speedup": target}, "calibration": {"images": args.images}},
        "finetune": {"epochs": 0},
    }
    path = args.runs / f"{name}-{target}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def again(args: argparse.Namespace) -> None:
    """Print, for every finished run, what its report says and what its files show now."""
    print("| run | asked | reported | measured now (95 %) | A/A now |\n|" + " --- |" * 5)
    for file in sorted(args.runs.glob("*/report.json")):
        report = Report.load(file)
        found = exporters.benchmark([file.parent / f"{k}.onnx" for k in ("dense", "compact")], memory=False)
        assert found.speedup is not None and found.aa is not None and report.speed is not None
        cells = (f"{report.speed.target:.2f}", span(report.benchmarks[0].speedup), span(found.speedup), span(found.aa))
        print(f"| {file.parent.name} | {' | '.join(cells)} |", flush=True)


def span(speedup: Any) -> str:
    """A ratio with its interval."""
    return f"{speedup.median:.3f} ({speedup.low:.3f} to {speedup.high:.3f})"


def isolation(args: argparse.Namespace) -> None:
    """Print the ratio of two files as one process measures it, and as processes of one file each do, in turns."""
    print("| network | one process | a process for each file | difference |\n|" + " --- |" * 4)
    for name in args.only or NETWORKS:
        run = run_of(args, name)
        files = [args.runs / f"{name}-{kind}.onnx" for kind in ("dense", "half")]
        run.export_plain(run.loaded.model, files[0])
        run.export_plain(compressor.shrink(run.loaded.model, compressor.Plan.uniform(run.loaded.groups, 0.5)), files[1])
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


def run_of(args: argparse.Namespace, name: str, overrides: Sequence[str] = ()) -> RunContext:
    """The run of a network."""
    out = args.runs / name
    with Stages(out) as stages:
        return RunContext(load_recipe(recipe(args, name), overrides), args.runs, stages, Journal(out / "log.txt"))


def cost_of(args: argparse.Namespace, name: str) -> tuple[RunContext, Latency]:
    """The run of a network, its table measured or read."""
    run = run_of(args, name)
    with run.stages:
        cost = Profile(run).cost
    assert isinstance(cost, Latency)
    return run, cost


def prediction(args: argparse.Namespace) -> None:
    """Print a row per network: how far the table was off."""
    print("| network | groups | held-out error of the table, p90 | random plans: median | p90 | within 5 % |")
    print("|" + " --- |" * 6)
    for name in args.only or NETWORKS:
        run, cost = cost_of(args, name)
        groups, rng, errors = run.loaded.groups, Random(1), list[float]()
        dense, file = args.runs / f"{name}-dense.onnx", args.runs / f"{name}-plan.onnx"
        run.export_plain(run.loaded.model, dense)
        for _ in range(args.plans):
            step = {g.name: math.lcm(g.step, args.multiple_of) for g in groups}
            widths = {g.name: rng.choice([*range(step[g.name], g.size, step[g.name]), g.size]) for g in groups}
            plan = compressor.Plan.of(groups, {g.name: g.balanced(range(g.size))[: widths[g.name]] for g in groups})
            run.export_plain(compressor.shrink(run.loaded.model, plan), file)
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
    run.export_plain(run.loaded.model, dense)
    shutil.copyfile(dense, copy)
    group = max(run.loaded.groups, key=lambda g: g.size)
    width = min(range(group.step, group.size), key=lambda w: abs(cost.total({group.name: w}) / cost.dense - 0.95))
    plan = compressor.Plan.of(run.loaded.groups, {group.name: range(width)})
    run.export_plain(compressor.shrink(run.loaded.model, plan), faster)
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


COMMANDS = {f.__name__: f for f in (promise, prediction, noise, isolation, families, again)}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=tuple(COMMANDS), default="families")
    for flag in ("--data", "--checkpoints"):
        parser.add_argument(flag, type=Path, help="needed by all but `families` and `again`")
    parser.add_argument("--runs", type=Path, default=short.FOLDER / "latency")
    parser.add_argument("--only", nargs="+", choices=(*NETWORKS, *FAMILIES))
    parser.add_argument("--targets", nargs="+", type=float, default=[1.5, 2.0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--multiple-of", type=int, default=4, help="random plans of `prediction` have such widths")
    parser.add_argument("--plans", type=int, default=PLANS)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = short.parse(parser, what="families", only=["squeezenet1_1"], targets=[1.5], images=16)
    args.runs.mkdir(parents=True, exist_ok=True)
    with busy(args.busy):
        COMMANDS[args.what](args)


if __name__ == "__main__":
    main()
