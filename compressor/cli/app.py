"""The `compressor` command: one short function per verb.

Nothing here imports torch until a verb needs it, so that `compressor --help` answers at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from compressor import __version__
from compressor.cli.errors import as_known
from compressor.cli.tables import plain, print_benchmarks, print_json, print_table
from compressor.errors import InputError, LeaderStopped
from compressor.recipe.fresh import OPTION, join, repeated

if TYPE_CHECKING:
    from compressor.report import Report

app = typer.Typer(
    help="Make a trained network smaller and measurably faster: checkpoint in, compact ONNX model out, with a verdict.",
    epilog="Exit codes: 0 accepted; 1 a rule failed; 2 the input is at fault; 3 this machine cannot; 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to standard output.")]
RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe in YAML.")]
Baseline = Annotated[
    Path | None,
    typer.Option(metavar="REPORT", help="The report of an earlier accepted run: judge by `accept.baseline`, too."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change one key of the recipe; may be repeated."),
]

LatencyTableFile = Annotated[
    Path | None,
    typer.Option("--table", metavar="TABLE.json", help="Latency table of the device to compress for; from `profile`."),
]


def _with_table(overrides: list[str] | None, table: Path | None) -> list[str]:
    """Overrides, and one more that names the table; its path is relative to the working directory."""
    return [*(overrides or ()), *([f"benchmark.table={json.dumps(str(table.absolute()))}"] if table else ())]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"compressor {__version__}")
        raise typer.Exit()


@app.callback()
def _common(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="COMPRESSOR_DEBUG", help="Show the traceback of every error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    context.obj["debug"] = debug


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Directory of the run.")] = Path("runs/demo")) -> None:
    """Train a small network on handwritten digits, compress it, show the report."""
    from compressor.pipeline.demo import run_demo

    _finish(run_demo(out))


@app.command()
def init(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A torchvision model, module:callable, or path/to/file.py:callable.")
    ],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("recipe.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Write a commented starter recipe."""
    from compressor.recipe.starter import write_starter

    write_starter(model, out, force=force)
    typer.echo(f"wrote {out}: fill in the paths, then: compressor run {out}", err=True)


class _Run(TyperCommand):
    """Takes `--fresh` with the name of a stage and without."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, join(args))


@app.command(cls=_Run)
def run(
    context: typer.Context,
    recipe: RecipeFile,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the run.  [default: runs/<name of the recipe>]")
    ] = None,
    overrides: Overrides = None,
    fresh: Annotated[
        str | None, typer.Option(OPTION, metavar="[STAGE]", help="Repeat finished stages; after a name, from there on.")
    ] = None,
    baseline: Baseline = None,
    table: LatencyTableFile = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write curves to RUN_DIR/tensorboard.")] = False,
    as_json: Json = False,
) -> None:
    """Compress a checkpoint as a recipe says, measure the result and judge it; an interrupted run continues."""
    from compressor.recipe import load_recipe

    context.obj["events"] = as_json
    overrides = _with_table(overrides, table)
    load_recipe(recipe, overrides)  # a faulty recipe is refused at once, before torch is imported
    again = fresh or fresh is not None
    repeated(again)
    from compressor.pipeline import compress

    out = out or Path("runs") / recipe.stem
    settings: dict[str, Any] = {"fresh": again, "events": as_json, "tensorboard": tensorboard}
    _finish(compress(recipe, out=out, overrides=overrides, baseline=baseline, **settings), as_json)


@app.command()
def inspect(recipe: RecipeFile, table: LatencyTableFile = None, as_json: Json = False) -> None:
    """Show what can be cut from the network of a recipe, what cannot and why; with a table, what that saves in time."""
    from compressor.recipe import load_recipe

    overrides = _with_table(None, table)
    load_recipe(recipe, overrides)
    from compressor.pipeline import inspect_recipe
    from compressor.report.writers.console import print_inspection

    inspection = inspect_recipe(recipe, overrides)
    if as_json:
        print_json(inspection.to_dict())
    else:
        print_inspection(inspection)


def _known_provider(name: str) -> str:
    from exporters.providers import PROVIDERS

    if name not in PROVIDERS:
        raise typer.BadParameter(f"'{name}' is not one of {', '.join(map(repr, PROVIDERS))}.")
    return name


class _Benchmark(TyperCommand):
    """Names the providers in its help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from exporters.providers import PROVIDERS

        for option in self.params:
            if option.name == "provider":
                option.metavar = "|".join(PROVIDERS)
        super().format_help(ctx, formatter)


@app.command(cls=_Benchmark)
def benchmark(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="A.onnx B.onnx …", help="Files to measure; the first is the reference."),
    ] = None,
    provider: Annotated[
        str, typer.Option(callback=_known_provider, help="Execution provider of ONNX Runtime.")
    ] = "cpu",
    threads: Annotated[list[int], typer.Option(min=1, help="Threads within an operator; may be repeated.")] = [1],  # noqa: B006
    batch: Annotated[list[int], typer.Option(min=1, help="Inputs per call; may be repeated.")] = [1],  # noqa: B006
    seconds: Annotated[float, typer.Option(min=0.1, help="Least time of measuring, for each setting.")] = 5.0,
    save: Annotated[Path | None, typer.Option(help="Directory for the raw samples, a file for each setting.")] = None,
    samples: Annotated[
        list[Path] | None, typer.Option("--from", help="Analyse raw samples again instead; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the latency of ONNX files side by side."""
    import exporters

    if bool(files) == bool(samples):
        raise InputError("give either files to measure, or --from", where="benchmark", cure="see `benchmark --help`")
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
    results = [exporters.Benchmark.from_samples(path) for path in samples or ()]
    for number, size in ((number, size) for number in threads for size in batch if files):
        results.append(
            exporters.benchmark(files or [], provider=provider, threads=number, batch=size, min_seconds=seconds)
        )
        if save is not None:
            results[-1].save_samples(save / f"samples-threads{number}-batch{size}.json")
    if as_json:
        print_json({"benchmarks": [result.to_dict() for result in results]})
    else:
        print_benchmarks(results)


@app.command()
def profile(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("table.json"),
    kit: Annotated[
        Path | None,
        typer.Option(help="Measure nothing, but write to this directory what measures the table on another device."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what was measured on this device.")] = False,
    overrides: Overrides = None,
) -> None:
    """Measure the latency table of this device: what every operator costs at the widths that it can take."""
    from compressor.recipe import load_recipe

    load_recipe(recipe, overrides or ())
    from compressor.pipeline import profile_recipe

    if kit is not None:
        profile_recipe(recipe, kit=kit, overrides=overrides or ())
        typer.echo(f"wrote {kit}: run `python measure.py` there on the device, then bring table.json back", err=True)
    else:
        found = profile_recipe(recipe, out=out, overrides=overrides or (), fresh=fresh)
        typer.echo(f"wrote {out}: {found}", err=True)


@app.command()
def check(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a finished run.")],
    overrides: Overrides = None,
    baseline: Baseline = None,
) -> None:
    """Judge a finished run again, by other rules if `--set accept.…` gives them; nothing is run again."""
    from compressor.pipeline import check_run

    _finish(check_run(run_dir, overrides or (), baseline))


@app.command()
def methods(as_json: Json = False) -> None:
    """List every selection method and every learned gate: its name, what it is, its options, its paper."""
    from compressor.gates.base import Gate
    from compressor.gates.settings import gate_options
    from compressor.selection.base import Method
    from compressor.selection.lookup import list_methods
    from compressor.support.plugins import discover, options_of

    found, problems = list_methods()
    for problem in problems:
        typer.echo(f"warning: {problem}", err=True)
    known: list[tuple[str, type[Method] | type[Gate], dict[str, Any]]] = [
        *((name, method, options_of(method)) for name, method in found.items()),
        *((name, gate, gate_options(gate)) for name, gate in discover("compressor.gates", Gate).items()),
    ]
    if as_json:
        print_json([{"name": name, "summary": m.summary, "options": own, "paper": m.paper} for name, m, own in known])
        return
    shown: list[tuple[str, ...]] = []
    for name, method, own in known:
        defaults = ", ".join(f"{option}: {plain(value)}" for option, value in own.items())
        shown.append((name, method.summary, defaults, method.paper))
    print_table(("Method", "What it is", "Options and defaults", "Paper"), shown)


def main() -> NoReturn:
    """Run the command and end the process with the exit code that says how it went."""
    state = {"debug": False, "events": False}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a CI runner's way to say Ctrl-C
    try:
        app(prog_name="compressor", obj=state)
    except SystemExit as end:
        if end.code == 130 and not _rank():
            _tell("interrupted; run the same command again to resume", 130, as_event=state["events"])
        raise
    except Exception as error:
        known = as_known(error)
        if known is None:
            traceback.print_exception(error)
            typer.echo("error: this is a bug in compressor; please report it with the lines above", err=True)
            sys.exit(70)
        if state["debug"]:
            traceback.print_exception(error)
        if not isinstance(known, LeaderStopped):
            _tell(
                f"{f'process {_rank()}: ' if _rank() else ''}error: {known}", known.exit_code, as_event=state["events"]
            )
        sys.exit(known.exit_code)
    sys.exit(0)


def _tell(text: str, exit_code: int, *, as_event: bool) -> None:
    """Say on stderr why the process ends."""
    if as_event:
        from compressor.support.progress import write_event

        write_event("end", text=text, exit_code=exit_code)
    else:
        typer.echo(text, err=True)


def _rank() -> int:
    """Number of this process among those that a launcher started."""
    return int(os.environ.get("RANK", "0"))


def _finish(report: Report, as_json: bool = False) -> None:
    """Show a report and end with its verdict."""
    from compressor.report.writers.console import print_report

    if as_json and not _rank():
        typer.echo(report.to_json())
    elif not _rank():
        print_report(report)
    raise typer.Exit(0 if report.accepted else 1)
