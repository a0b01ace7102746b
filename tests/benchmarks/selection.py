"""What choosing units is worth, and what it costs: accuracy before any training, against other tools; speed; memory.

    python -m tests.benchmarks.selection --data DIR --resnet20 FILE --resnet56 FILE [--parts accuracy speed cost plot]
    python -m tests.benchmarks.selection --short

DIR holds CIFAR-10 as train/<class>/*.jpg and val/<class>/*.jpg. The tables are appended to the file of `--out`.

Times are those of the process on one thread, so that other programs on the machine weigh less.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import matplotlib
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.budget.allocate import allocate
from compressor.budget.costs.macs import Macs
from compressor.budget.costs.measure import measure_cost
from compressor.data import load_data
from compressor.data.calibration import calibration_batches
from compressor.pipeline.loading import load_model
from compressor.recipe import load_recipe
from compressor.refit import refit
from compressor.selection.base import Calibration, Method, Ranking
from compressor.selection.methods.greedy_forward import GreedyForward
from compressor.selection.methods.imitation import Imitation
from compressor.structure import ChannelGroup, Groups, Plan, find_groups, shrink
from compressor.structure.surgery.mask import masked, zero_columns
from compressor.support import plugins
from compressor.tasks import evaluate
from tests.benchmarks import peers, short

SAMPLES = Path(__file__).parents[2] / "samples" / "cifar10-resnet"
TARGETS = (0.75, 0.5)
BISECTIONS = 8
BATCH = 16
Batches = Sequence[tuple[Tensor, ...]]


class Problem:
    """A trained network, images to choose units with, and images to judge by."""

    def __init__(self, name: str, path: Path, overrides: Sequence[str], images: int) -> None:
        recipe = load_recipe(path, overrides)
        subject = load_model(recipe, path.parent)
        self.name, self.model, self.groups, self.macs = name, subject.model, subject.groups, subject.cost.macs
        read = load_data(recipe.data, recipe.model.input, recipe.seed)
        self.images, self.labels = calibration_batches(read, images, 128, recipe.seed)
        self.validation = read.validation

    @classmethod
    def of(cls, name: str, checkpoint: str, data: str, images: int) -> Problem:
        """The problem of a sample."""
        overrides = (f"model.checkpoint={checkpoint}", f"data.root={data}")
        return cls(name, SAMPLES / f"recipe-{name}.yaml", overrides, images)

    def accuracy(self, model: nn.Module) -> float:
        assert self.validation is not None
        return 100 * evaluate(model, self.validation).main

    def calibration(self, images: Batches | None = None) -> Calibration:
        return Calibration(self.model, self.groups, images or self.images, None if images else self.labels)


def seconds(work: Callable[[], object]) -> float:
    """Processor time of a call."""
    started = time.process_time()
    work()
    return time.process_time() - started


# accuracy before fine-tuning


def our_rows(problem: Problem, names: Sequence[str]) -> Iterator[list[str]]:
    """One row per method: accuracy at every target, with weights as they are and re-solved."""
    methods, cost = plugins.discover("compressor.selection.methods", Method), Macs(problem.model, problem.groups)
    for name in names:
        started = time.process_time()
        rankings = methods[name]().rank(problem.calibration())
        row = [name, f"{time.process_time() - started:.0f}"]
        for target in TARGETS:
            widths = allocate(problem.groups, rankings, cost, target)
            plan = Plan.of(problem.groups, {n: rankings[n].order[:w] for n, w in widths.items()})
            fitted, _ = refit(problem.model, plan, problem.images, groups=problem.groups)
            row += [f"{problem.accuracy(shrink(m, plan)):.1f}" for m in (problem.model, fitted)]
        yield row


def peer_rows(problem: Problem) -> Iterator[list[str]]:
    """One row per importance of torch-pruning, spread uniformly and globally."""
    assert problem.labels is not None
    example, grads = problem.images[0][0], peers.gradients(problem.model, problem.images[0][0], problem.labels[0])
    for name, importance in peers.PEERS.items():
        for spread in ("uniform", "global"):
            row = [f"torch-pruning {name}, {spread}", ""]
            for target in TARGETS:
                network = problem.model, problem.groups, example[:1]
                cut = partial(peers.cut, *network, importance, grads, spread=spread == "global")
                row += [f"{problem.accuracy(_at_macs(problem, cut, target)):.1f}", ""]
            yield row


def _at_macs(problem: Problem, cut: Callable[[float], nn.Module], target: float) -> nn.Module:
    """The largest network at or below the target, by bisection on the ratio."""
    low, high, example = 0.0, 0.95, problem.images[0][0][:1]
    best = cut(high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        model = cut(middle)
        if measure_cost(model, example).macs <= target * problem.macs:
            best, high = model, middle
        else:
            low = middle
    return best


# speed


def divergence(model: nn.Module, images: Batches, targets: Sequence[Tensor]) -> float:
    """Mean KL divergence from the dense outputs."""
    pairs = [(model(*batch).log_softmax(1), target) for batch, target in zip(images, targets, strict=True)]
    losses = [F.kl_div(own, target, reduction="none", log_target=True).sum(1) for own, target in pairs]
    return float(torch.cat(losses).double().mean())


@torch.no_grad()
def loss_of(
    model: nn.Module, group: ChannelGroup, kept: Sequence[int], images: Batches, targets: Sequence[Tensor]
) -> float:
    """Loss of the network with some units of a group only: the whole network, run on all images."""
    tensors = dict(model.named_parameters())
    cuts = [s for s in group.slices if s.role == "consumer"]
    saved = {cut.tensor: tensors[cut.tensor].detach().clone() for cut in cuts}
    for cut in cuts:
        if len(kept) < group.size:
            zero_columns(tensors[cut.tensor].detach(), cut, tuple(u for u in range(group.size) if u not in kept))
    try:
        return divergence(model, images, targets)
    finally:
        for name, values in saved.items():
            tensors[name].detach().copy_(values)


def plain_forward(model: nn.Module, group: ChannelGroup, images: Batches, targets: Sequence[Tensor]) -> list[int]:
    """Greedy forward selection as it is written down."""
    chosen: list[int] = []
    while len(chosen) < group.size:
        left = [unit for unit in range(group.size) if unit not in chosen]
        chosen.append(min(left, key=lambda unit: loss_of(model, group, [*chosen, unit], images, targets)))
    return chosen


def plain_backward(model: nn.Module, group: ChannelGroup, images: Batches, targets: Sequence[Tensor]) -> list[int]:
    """Greedy backward elimination; the units in the order in which one would keep them."""
    kept, dropped = list(range(group.size)), list[int]()
    while kept:
        worst = min(kept, key=lambda u: loss_of(model, group, [k for k in kept if k != u], images, targets))
        kept.remove(worst)
        dropped.append(worst)
    return dropped[::-1]


def speed_rows(problem: Problem, names: Sequence[str], count: int) -> Iterator[list[str]]:
    """Time of plain greedy forward selection and of ours, and the loss with half of the units of each group.

    The time is that of ranking all units; of `imitation`, prices included. The refit of the network comes on top.
    """
    groups = Groups(tuple(problem.groups.by_name()[n] for n in names), norms=problem.groups.norms)
    images = [tuple(torch.cat(column)[:count] for column in zip(*problem.images, strict=True))]
    with torch.no_grad():
        targets = [problem.model(*batch).log_softmax(1) for batch in images]
    given = Calibration(problem.model, groups, images)

    def at_half(orders: dict[str, Sequence[int]]) -> float:
        plan = Plan.of(groups, {g.name: orders[g.name][: g.size // 2] for g in groups})
        with torch.no_grad(), masked(problem.model, plan) as model:
            return divergence(model, images, targets)

    def refitted(orders: dict[str, Sequence[int]]) -> list[str]:
        plan = Plan.of(groups, {g.name: orders[g.name][: g.size // 2] for g in groups})
        started = time.process_time()
        fitted, _ = refit(problem.model, plan, images, groups=problem.groups)
        took = time.process_time() - started
        with torch.no_grad():
            return [f"{divergence(fitted, images, targets):.4f}", f"{took:.2f}"]

    plain: dict[str, Sequence[int]] = {}

    def run_plain() -> None:
        for group in groups:
            plain[group.name] = plain_forward(problem.model, group, images, targets)

    slow = seconds(run_plain)
    yield ["plain greedy forward", f"{slow:.1f}", "1", f"{at_half(plain):.4f}", *refitted(plain), ""]
    methods: dict[str, Method] = {
        "greedy_forward": GreedyForward(images=count, refit=False),
        "greedy_forward, taylor": GreedyForward(images=count, candidates="taylor", refit=False),
        "imitation": Imitation(),
    }
    for name, method in methods.items():
        found: dict[str, Ranking] = {}
        took = seconds(lambda method=method, found=found: found.update(method.rank(given)))
        orders = {n: r.order for n, r in found.items()}
        same = sum(tuple(plain[n]) == tuple(order) for n, order in orders.items())
        equal = f"{same} of {len(groups)} groups"
        yield [name, f"{took:.2f}", f"{slow / took:.1f}", f"{at_half(orders):.4f}", *refitted(orders), equal]


# cost on large networks


def cost_row(name: str, count: int) -> list[str]:
    """Time of ranking and refit in forward passes over the same images, and peak memory; in a process of its own.

    The passes are timed before, between and after, for the speed of a machine that others use varies.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = [(torch.randn(min(BATCH, count - i), 3, 224, 224),) for i in range(0, count, BATCH)]
    model = _normalised(getattr(torchvision.models, name)(weights=None), images[0][0])
    groups = find_groups(model, images[0][0][:1])

    def forward() -> float:
        with torch.no_grad():
            return seconds(lambda: [model(*batch) for batch in images])

    passes = [forward()]
    found: dict[str, Ranking] = {}
    rank = seconds(lambda: found.update(Imitation().rank(Calibration(model, groups, images))))
    passes.append(forward())
    plan = Plan.of(groups, {g.name: found[g.name].order[: max(g.step, g.size // 2 // g.step * g.step)] for g in groups})
    fit = seconds(lambda: refit(model, plan, images, groups=groups))
    passes.append(forward())
    once = sum(passes) / len(passes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    numbers = [once, rank / once, fit / once, (rank + fit) / once, peak]
    return [name, str(len(groups)), *(f"{number:.1f}" for number in numbers)]


def _normalised(model: nn.Module, images: Tensor) -> nn.Module:
    """The network with batch norms that have seen images: without, random weights let the activations grow."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(images)
    return model.eval()


# the plot


def plot(problem: Problem, name: str, count: int, path: Path) -> None:
    """Loss against the number of units of one group, for orders found in different ways."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    group = problem.groups.by_name()[name]
    images = [tuple(torch.cat(column)[:count] for column in zip(*problem.images, strict=True))]
    with torch.no_grad():
        targets = [problem.model(*batch).log_softmax(1) for batch in images]
    methods = plugins.discover("compressor.selection.methods", Method)
    one = Calibration(problem.model, Groups((group,), norms=problem.groups.norms), images)
    orders: dict[str, Sequence[int]] = {
        "forward": GreedyForward(images=count).rank(one)[name].order,
        "backward": plain_backward(problem.model, group, images, targets),
        "magnitude": methods["magnitude"]().rank(one)[name].order,
        "random": methods["random"]().rank(one)[name].order,
    }
    pyplot.figure(figsize=(6, 4))
    for label, order in orders.items():
        widths = range(1, group.size + 1)
        losses = [loss_of(problem.model, group, order[:width], images, targets) for width in widths]
        pyplot.plot(widths, losses, label=label)
    pyplot.xlabel(f"units of {name} that are kept, weights as they are")
    pyplot.ylabel("KL divergence from the dense network")
    pyplot.yscale("log")
    pyplot.legend()
    pyplot.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    pyplot.savefig(path)


def write(path: Path, title: str, columns: Sequence[str], rows: Iterator[list[str]] | list[list[str]]) -> None:
    """Append a table, row by row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for line in (f"\n## {title}\n", _line(columns), _line(["---"] * len(columns))):
            print(line, file=file, flush=True)
        for row in rows:
            print(_line(row), flush=True)
            print(_line(row), file=file, flush=True)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=not short.asked, help="folder of CIFAR-10 as files")
    parser.add_argument("--resnet20", help="checkpoint of a trained ResNet-20")
    parser.add_argument("--resnet56", help="checkpoint of a trained ResNet-56")
    parser.add_argument("--parts", nargs="+", default=["accuracy", "speed", "cost", "plot"])
    parser.add_argument("--methods", nargs="+", help="of ours in the table of accuracies; all without it")
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet56"], help="of the table of accuracies")
    parser.add_argument("--images", type=int, default=1024, help="calibration images")
    parser.add_argument("--speed-images", type=int, default=128)
    parser.add_argument("--speed-groups", nargs="+", help="of ResNet-20; all without it")
    large = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v2", "densenet121"]
    parser.add_argument("--cost-networks", nargs="+", default=large)
    parser.add_argument("--cost-images", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("docs/selection.md"))
    return short.parse(parser, methods=["magnitude", "imitation"], images=256)


def main() -> None:
    """Measure, and append tables."""
    args = _arguments()
    torch.set_num_threads(1)
    if args.short:
        problem = Problem("short", *short.recipe(), args.images)
        print(f"top-1 {problem.accuracy(problem.model):.1f} dense; seconds, then {TARGETS} of the MACs, with refit")
        for row in our_rows(problem, args.methods):
            print(_line(row), flush=True)
        return
    versions = (
        f"torch {torch.__version__}, torch-pruning {version('torch-pruning')}, Python {platform.python_version()}"
    )
    note = f"{platform.machine()}, one thread; {versions}; `{' '.join(['selection.py', *_public(sys.argv[1:])])}`"
    problems = {
        n: Problem.of(n, getattr(args, n), args.data, args.images) for n in ("resnet20", "resnet56") if getattr(args, n)
    }
    if "accuracy" in args.parts:
        columns = ["method", "seconds", *(f"{t:.0%} of MACs{s}" for t in TARGETS for s in ("", ", refit"))]
        names = args.methods or list(plugins.discover("compressor.selection.methods", Method))
        for problem in (problems[n] for n in args.networks):
            dense = problem.accuracy(problem.model)
            title = f"{problem.name} before fine-tuning: top-1 (dense {dense:.1f} %)"
            write(args.out, title, columns, our_rows(problem, names))
            write(args.out, f"{problem.name}: torch-pruning at the same MACs", columns, peer_rows(problem))
    if "speed" in args.parts:
        small = problems["resnet20"]
        names = args.speed_groups or [group.name for group in small.groups]
        title = f"speed on {len(names)} groups of resnet20, {args.speed_images} images"
        columns = [
            "method",
            "seconds",
            "times faster",
            "loss at half width",
            "loss, refit",
            "seconds of refit",
            "picks as plain",
        ]
        write(args.out, title, columns, speed_rows(small, names, args.speed_images))
    if "cost" in args.parts:
        title = f"imitation and refit, {args.cost_images} images of 224 x 224, in forward passes over them"
        columns = ["network", "groups", "forward, s", "ranking", "refit", "together", "peak memory, GiB"]
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
            rows = pool.map(partial(cost_row, count=args.cost_images), args.cost_networks)
            write(args.out, title, columns, rows)
    if "plot" in args.parts:
        plot(problems["resnet20"], "layer2.1.conv1", args.speed_images, args.out.with_suffix(".svg"))
    with args.out.open("a") as file:
        print(f"\nMeasured on {note}", file=file)


def _public(words: Sequence[str]) -> list[str]:
    """The command without the folders of this machine."""
    return [Path(word).name if "/" in word else word for word in words]


if __name__ == "__main__":
    main()
