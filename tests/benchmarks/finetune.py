"""Which learning-rate schedule wins: the pruned network of a finished run, fine-tuned with each.

    python -m tests.benchmarks.finetune RECIPE RUN_DIR [--epochs 1 3 10] [--schedules NAME…] [--seeds 1] [--lr 0.02]
    python -m tests.benchmarks.finetune --short

RUN_DIR holds the run of RECIPE (with `--set finetune.epochs=0`): its plan and weights are where every training begins.
Rates are tried for every schedule, since `finetune.lr` is the highest of each; the table shows top-1 for all of them.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from compressor.data import load_data
from compressor.pipeline import compress
from compressor.pipeline.loading import load_model
from compressor.recipe import load_recipe
from compressor.structure import load_compact
from compressor.support import plugins
from compressor.tasks import evaluate
from compressor.training.loop import finetune
from compressor.training.schedules.base import Schedule
from tests.benchmarks import short

SCHEDULES = "compressor.training.schedules"


def main() -> None:
    """Train all, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("recipe", "run_dir"):
        parser.add_argument(name, type=Path, nargs="?" if short.asked else None)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--schedules", nargs="+", default=list(plugins.discover(SCHEDULES, Schedule)))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--lr", type=float, nargs="+", default=[0.02, 0.05])
    parser.add_argument("--average", type=float, nargs="+", default=[0.0])
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    args = short.parse(parser, epochs=[1], schedules=["llr", "cosine", "allr"], lr=[0.02])
    if args.short:
        args.recipe, args.overrides = short.recipe()
        args.run_dir = short.FOLDER / "cut"
        compress(args.recipe, args.run_dir, [*args.overrides, "finetune.epochs=0"], fresh=True)
    recipe = load_recipe(args.recipe, args.overrides)
    subject = load_model(recipe, args.recipe.parent.absolute())

    def top1(**changes: object) -> float:
        """Mean over the seeds, in percent."""
        settings, found = recipe.finetune.model_copy(update=changes), []
        for seed in range(args.seeds):
            data = load_data(recipe.data, recipe.model.input, seed)
            model = load_compact(args.run_dir, subject.model)
            finetune(model, subject.model, data.train or (), settings, seed=seed)
            found.append(100 * evaluate(model, data.validation or ()).main)
        return statistics.mean(found)

    table = Table("schedule", "lr", "average", *(f"{count} epochs" for count in args.epochs))
    for name, lr, average in itertools.product(args.schedules, args.lr, args.average):
        cells = [f"{top1(schedule=name, lr=lr, average=average, epochs=epochs):.2f}" for epochs in args.epochs]
        table.add_row(name, f"{lr:g}", f"{average:g}", *cells)
        print(name, lr, average, *cells, flush=True)
    Console().print(table)


if __name__ == "__main__":
    main()
