"""What the verbs run, inspect and check do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from compressor.budget.latency.build import learn_skeleton, settings_of
from compressor.budget.latency.model import Latency
from compressor.budget.latency.profile import write_kit
from compressor.budget.search.speedup import describe
from compressor.budget.targets.base import USUAL_ALIGNMENT
from compressor.errors import InputError
from compressor.pipeline.context import RunContext
from compressor.pipeline.inspection import inspect_model
from compressor.pipeline.results import read_samples
from compressor.pipeline.run import execute
from compressor.pipeline.stages.profile import Profile
from compressor.pipeline.store import Stages
from compressor.recipe import Recipe, load_recipe
from compressor.report import Inspection, Report, write_report
from compressor.report.acceptance import judge
from compressor.report.baseline import load_baseline
from compressor.support import distributed
from compressor.support.progress import Journal
from compressor.support.tensorboard import tensorboard as open_tensorboard


def compress(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    fresh: bool | str = False,
    baseline: str | Path | None = None,
    *,
    events: bool = False,
    tensorboard: bool = False,
) -> Report:
    """Compress a checkpoint as a recipe says, measure the result, judge it, and write everything into one directory.

    Args:
        recipe: A recipe or its file.
        out: The run directory; `runs/<name of the recipe>` by default. Stages that it holds already are not repeated.
        overrides: Changes of the recipe's file, each `key.path=value`.
        fresh: Repeat finished stages: all, or those from the named one on.
        baseline: The report of an earlier accepted run, or its directory, for the rules of `accept.baseline`.
        events: Tell on stderr in JSON, an event on each line, how it goes.
        tensorboard: Write the curves of every training to the folder `tensorboard` of the run directory.

    Returns:
        What was found; `accepted` says whether every rule holds.

    Raises:
        InputError: recipe, checkpoint, data or model is at fault.
        MachineError: this machine cannot do it.

    Example:
        >>> report = compressor.compress("recipe.yaml", out="run", overrides=["compress.target.macs=0.6"])
        >>> report.compact.macs < 0.61 * report.dense.macs
        True
        >>> Path("run/compact.onnx").exists()
        True
    """
    distributed.start()
    loaded, base, name = _read(recipe, overrides)
    earlier = load_baseline(Path(baseline)) if baseline is not None else None
    run_dir = Path(out) if out is not None else Path("runs") / name
    journal = Journal(run_dir / "log.txt", quiet=not distributed.leads(), events=events)
    board = open_tensorboard(run_dir / "tensorboard") if tensorboard else nullcontext()
    with _naming(recipe), Stages(run_dir, fresh=fresh, say=journal.say) as stages, board as journal.listener:
        return execute(RunContext(loaded, base, stages, journal), earlier)


def inspect_recipe(recipe: str | Path | Recipe, overrides: Sequence[str] = ()) -> Inspection:
    """Find out what could be cut from the network of a recipe; its data is not touched.

    With a latency table in the recipe, also what each group costs in milliseconds, and at which widths it gets faster.
    """
    loaded, base, _ = _read(recipe, overrides)
    with _naming(recipe), TemporaryDirectory() as directory, Stages(Path(directory)) as stages:
        context = RunContext(loaded, base, stages, Journal(Path(directory, "log.txt")))
        cost = Profile(context).cost if loaded.benchmark.table else None
        latency = cost if isinstance(cost, Latency) else None
        return inspect_model(context.loaded, loaded.compress.multiple_of or USUAL_ALIGNMENT, latency)


def profile_recipe(
    recipe: str | Path | Recipe,
    out: Path | None = None,
    kit: Path | None = None,
    overrides: Sequence[str] = (),
    fresh: bool = False,
) -> str:
    """MeasureFiles the latency table of a recipe's network on this device, or write what measures it on another one.

    Args:
        recipe: A recipe or its file.
        out: The table to write.
        kit: Instead, the directory of the kit.
        overrides: Changes of the recipe's file.
        fresh: MeasureFiles again what has been measured on this device.

    Returns:
        In words, what the table says of the device.

    Raises:
        InputError: there can be no table of this network.
    """
    loaded, base, _ = _read(recipe, overrides)
    if out is not None and not out.absolute().parent.is_dir():
        raise InputError("there is no such folder", where=str(out.parent), cure="make it, or choose another with --out")
    with _naming(recipe), TemporaryDirectory() as directory, Stages(Path(directory), fresh=fresh) as stages:
        context = RunContext(loaded, base, stages, Journal(Path(directory, "log.txt")))
        if kit is not None:
            skeleton = learn_skeleton(
                context.loaded.model, context.loaded.groups, loaded.benchmark, context.export_plain
            )
            return f"{len(write_kit(skeleton, context.loaded.groups, settings_of(loaded.benchmark), kit))} files"
        measured = Profile(context)
        cost = measured.cost
        if not isinstance(cost, Latency):
            problem = measured.why_not
            cure = "give a target in speedup all the same: candidates are measured as a whole"
            raise InputError(f"there can be no latency table: {problem}", where="model", cure=cure)
        if out is not None:
            cost.table.save(out)
        return describe(cost)


def check_run(run_dir: str | Path, overrides: Sequence[str] = (), baseline: str | Path | None = None) -> Report:
    """Judge a finished run again, by the rules of its recipe with changes; its measurements stay what they are.

    Args:
        run_dir: The run directory, whose report is written again.
        overrides: Changes of the rules, each `accept.rule=value`.
        baseline: The report of an earlier accepted run, or its directory.

    Raises:
        InputError: the directory holds no finished run, or an override changes more than rules.
    """
    run_dir = Path(run_dir)
    for override in overrides:
        if not override.startswith("accept."):
            cure = "change rules only, such as accept.speedup=1.8; for all else use `compressor run`"
            raise InputError(f"'{override}' would need another run", where="--set", cure=cure)
    report = Report.load(run_dir / "report.json")
    recipe = load_recipe(run_dir / "recipe.yaml", overrides)
    earlier = load_baseline(Path(baseline)) if baseline is not None else None
    rules = judge(recipe.accept, recipe.compress.target, report, earlier)
    stored = report.recipe | {"accept": recipe.accept.model_dump(mode="json")}
    report = report.model_copy(update={"recipe": stored, "accept": rules})
    write_report(report, run_dir, read_samples(run_dir, report))
    return report


@contextmanager
def _naming(recipe: str | Path | Recipe) -> Iterator[None]:
    """Where a key of the recipe is at fault, the error names the file as well."""
    try:
        yield
    except InputError as error:
        if isinstance(recipe, Recipe) or (error.where or "").partition(".")[0] not in Recipe.model_fields:
            raise
        raise InputError(error.problem, where=f"{recipe}: {error.where}", cure=error.cure) from error


def _read(recipe: str | Path | Recipe, overrides: Sequence[str]) -> tuple[Recipe, Path, str]:
    if isinstance(recipe, Recipe):
        if overrides:
            raise InputError(
                "they change a recipe's file, not a Recipe", where="overrides", cure="give the file's path"
            )
        return recipe, Path.cwd(), "recipe"
    path = Path(recipe)
    return load_recipe(path, overrides), path.parent.absolute(), path.stem
