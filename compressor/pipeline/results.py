"""From finished stages to the files that a user wants."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressor import __version__
from compressor.pipeline.inspection import layers, untouched
from compressor.pipeline.loading import Subject
from compressor.recipe import Recipe, dump_recipe
from compressor.refit import FEWEST
from compressor.report import Report, Samples, write_report
from compressor.report.acceptance import judge
from compressor.report.schema import Benchmark, Finetune, Group, Network, Quality, Speed
from compressor.structure import Plan
from compressor.support.files import read_json, write_atomically
from compressor.tasks import Task, find_task
from compressor.training.history import BEFORE
from exporters.benchmark import Benchmark as Measurement

DENSE, COMPACT = "dense.onnx", "compact.onnx"
WEIGHTS, PLAN = "compact.safetensors", "plan.json"
QUALITY, HISTORY, PARITY, BENCHMARKS = "quality.json", "history.json", "parity.json", "benchmarks.json"
FAULTS, REFITS, GATES, RANKINGS = "faults.json", "refits.json", "gates.json", "rankings.json"
SPEED, BATCH, ACTIVITY = "speed.json", "batch.json", "activity.json"
RISE, JUDGED = "rise.json", "judged.json"
LAVISH = 1.05
"""A network that is faster than the target by more than this factor lost more than it had to."""
PACKAGES = ("torch", "torchvision", "torch-pruning", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Finished:
    """The directories of the stages that the results come from."""

    dense: Path
    reference: Path
    selected: Path
    planned: Path
    pruned: Path
    compact: Path
    exported: Path
    measured: Path


def make_report(
    recipe: Recipe, subject: Subject, done: Finished, seconds: Mapping[str, float], baseline: Report | None = None
) -> Report:
    """Put together what the stages found, and judge it."""
    dense_bytes, compact_bytes = (
        sum((directory / name).stat().st_size for name in _onnx_files(directory))
        for directory in (done.dense, done.exported)
    )
    measured = read_json(done.measured / BENCHMARKS)
    benchmarks = [Benchmark.model_validate(entry) for entry in measured]
    history, gates, judged = done.compact / HISTORY, done.selected / GATES, done.compact / JUDGED
    speed, rise, activity = done.planned / SPEED, done.planned / RISE, done.compact / ACTIVITY
    report = Report(
        environment=measured[0]["environment"],
        versions=_versions(),
        recipe=recipe.model_dump(mode="json"),
        dense=Network(onnx_bytes=dense_bytes, **read_json(done.reference / QUALITY)),
        pruned=Network(**read_json(done.pruned / QUALITY)),
        compact=Network(onnx_bytes=compact_bytes, **read_json(done.compact / QUALITY)),
        groups=_cut(subject, Plan.load(done.compact / PLAN), read_json(done.planned / FAULTS)) + untouched(subject),
        parity=read_json(done.exported / PARITY),
        benchmarks=benchmarks,
        seconds=dict(seconds),
        history=read_json(history) if history.exists() else [],
        finetune=read_json(judged) if judged.exists() else None,
        gates=read_json(gates) if gates.exists() else [],
        activity=read_json(activity) if activity.exists() else [],
        speed=read_json(speed) if speed.exists() else None,
        batch=read_json(done.measured / BATCH),
        rise=read_json(rise)["rise"] if rise.exists() else None,
        warnings=_warnings(recipe, benchmarks) + _not_refitted(done.pruned) + _inexact(Plan.load(done.compact / PLAN)),
        task=recipe.task,
        quality=quality_of(find_task(recipe.task)),
    )
    if report.speed:
        report.warnings.extend([*_short(report.speed), *_over(report.speed, benchmarks[0])])
    if report.finetune:
        report.warnings.extend(_training(report.finetune, recipe.finetune.rate))
    return report.model_copy(update={"accept": judge(recipe.accept, recipe.compress.target, report, baseline)})


def quality_of(task: Task) -> Quality:
    """Return how the quality of a task's networks is read."""
    main = task.metrics()[task.main]
    return Quality(
        metric=task.main,
        label=main.label,
        higher_is_better=main.higher_is_better,
        percent=main.percent,
        divergence=task.divergence_label,
        agreement=task.agreement_label,
    )


def publish(report: Report, recipe: Recipe, done: Finished, run_dir: Path) -> None:
    """Put the results into the run directory, each file at once, the report last."""
    samples = [samples_name(batch) for batch in recipe.benchmark.batch_sizes]
    sources = {
        done.dense: _onnx_files(done.dense),
        done.compact: [WEIGHTS, PLAN],
        done.exported: _onnx_files(done.exported),
        done.measured: samples,
    }
    for directory, names in sources.items():
        for name in names:
            _copy(directory / name, run_dir / name)
    write_atomically(run_dir / "recipe.yaml", dump_recipe(recipe).encode())
    write_report(report, run_dir, read_samples(run_dir, report))


def samples_name(batch: int) -> str:
    """Return the name of the file with the raw latencies at a batch size."""
    return f"samples-batch{batch}.json"


def read_samples(run_dir: Path, report: Report) -> Samples:
    """Return the raw latencies of every benchmark; none where their files were taken away."""
    paths = [run_dir / samples_name(benchmark.batch) for benchmark in report.benchmarks]
    if not all(path.is_file() for path in paths):
        return ()
    measurements = [Measurement.from_samples(path) for path in paths]
    return [{name: values.ravel().tolist() for name, values in m.samples.items()} for m in measurements]


def network(directory: Path) -> list[Path]:
    """Return the files of a stage that hold its compact network."""
    return [directory / WEIGHTS, directory / PLAN]


def _onnx_files(directory: Path) -> list[str]:
    """Names of the ONNX file of a stage, and of the weights beside it where it is too large for one file."""
    return sorted(path.name for path in directory.glob("*.onnx*"))


def _cut(subject: Subject, plan: Plan, faults: Mapping[str, str]) -> list[Group]:
    kept = {name: len(units) for name, units in plan.kept.items()}
    sizes = {g.name: {"reason": faults[g.name]} if g.name in faults else {"kept": kept[g.name]} for g in subject.groups}
    named = ((g, {"name": g.name, "layers": layers(g), "size": g.size, "inexact": g.inexact}) for g in subject.groups)
    return [Group(**known, **sizes[g.name]) for g, known in named]


def _inexact(plan: Plan) -> list[str]:
    cut = [p.group.name for p in plan.groups if p.group.inexact and p.dropped]
    return [f"inexact: layer norms read {', '.join(cut)}, so that what is left computes something else"] if cut else []


def _not_refitted(pruned: Path) -> list[str]:
    refits = pruned / REFITS
    entries = read_json(refits) if refits.exists() else []
    if entries and not any(entry["applied"] or entry["before"] for entry in entries):
        return [f"no layer was refitted: that takes at least {FEWEST} calibration images and layers that run once"]
    worse = [entry["layer"] for entry in entries if entry["before"] > 0 and not entry["applied"]]
    return [f"the refit of {', '.join(worse)} did not lower the held-out error and was not applied"] if worse else []


def _short(speed: Speed) -> list[str]:
    """What is reachable and what stands in the way, where the target was missed."""
    if speed.reached:
        return []
    best = speed.attempts[-1].speedup
    slowest, total = sorted(speed.layers, key=lambda name: -speed.layers[name])[:5], sum(speed.layers.values())
    shares = ", ".join(f"{name} {speed.layers[name] / total:.0%}" for name in slowest if total)
    left = f"; most of what is left is in {shares or 'no layer of the table'}" if speed.layers else ""
    return [f"a speed-up of {speed.target:.2f} is out of reach: {best.median:.2f} is the most that was measured{left}"]


def _over(speed: Speed, measured: Benchmark) -> list[str]:
    """By how much more than was asked for the network was made faster, and why; and what the table was worth."""
    found = [speed.doubt] if speed.doubt else []
    if not speed.measured or not speed.reached or measured.speedup.median <= speed.target * LAVISH:
        return found
    slower = [a.speedup.median for a in speed.attempts if a.speedup.low < speed.target]
    cause = f"the next slower choice that was found reaches {max(slower):.2f}x" if slower else "none is slower"
    chosen = speed.attempts[-1].speedup.median
    if chosen <= speed.target * LAVISH:
        cause = f"while choosing it was measured as {chosen:.2f}x"
    return [f"{measured.speedup.median:.2f}x was delivered where {speed.target:.2f}x was asked for: {cause}", *found]


def _training(found: Finetune, rate: float) -> list[str]:
    """What is to be known of a training: that it did not help, or was judged by images that it learns from."""
    problem = f"fine-tuning is judged by images that it learns from: {found.problem}"
    cure = f"lower finetune.lr (now {rate:g}), or give it more images or epochs"
    helped = f"fine-tuning did not help, the weights are those before it: {cure}"
    return [problem] * bool(found.problem) + [helped] * (found.delivered == BEFORE)


def _versions() -> dict[str, str]:
    return {"compressor": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES}


def _warnings(recipe: Recipe, benchmarks: Sequence[Benchmark]) -> list[str]:
    warnings = [f"{benchmark.setting}: {warning}" for benchmark in benchmarks for warning in benchmark.warnings]
    if recipe.model.checkpoint is None:
        warnings.append("no checkpoint was given: the weights are those that the builder brought")
    return warnings


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, temporary)
    os.replace(temporary, target)
