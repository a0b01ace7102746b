"""From finished stages to the files that a user wants."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressor import __version__
from compressor.budget.search.speed import Speed
from compressor.pipeline.context import RunContext
from compressor.pipeline.inspection import layers, untouched
from compressor.pipeline.loading import LoadedModel
from compressor.pipeline.stages.benchmark import MeasureFiles, samples_name
from compressor.pipeline.stages.compact import CompactStage
from compressor.pipeline.stages.evaluate_dense import EvaluateDense
from compressor.pipeline.stages.export_compact import ExportCompact
from compressor.pipeline.stages.export_dense import ExportDense
from compressor.pipeline.stages.finetune import Finetune
from compressor.pipeline.stages.learn_gates import LearnGates
from compressor.pipeline.stages.plan import ChoosePlan
from compressor.pipeline.stages.quality import quality_of
from compressor.pipeline.stages.select import RankingStage
from compressor.pipeline.stages.shrink import Shrink
from compressor.pipeline.variants import variants
from compressor.recipe import Recipe, dump_recipe
from compressor.refit import FEWEST
from compressor.report import Report, Samples, schema, write_report
from compressor.report.acceptance import judge
from compressor.report.schema import Benchmark, Group, Network
from compressor.report.schema import Finetune as Delivered
from compressor.structure import Plan
from compressor.support.files import copy_atomically, write_atomically
from compressor.training.history import BEFORE
from exporters.benchmark import Benchmark as Measurement

LAVISH = 1.05
"""A network that is faster than the target by more than this factor lost more than it had to."""
PACKAGES = ("torch", "torchvision", "torch-pruning", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class StageOutputs:
    """The finished stages that the results come from."""

    dense: ExportDense
    reference: EvaluateDense
    selected: RankingStage
    planned: ChoosePlan
    pruned: Shrink
    compact: CompactStage
    exported: ExportCompact
    measured: MeasureFiles


def make_report(context: RunContext, outputs: StageOutputs, baseline: Report | None = None) -> Report:
    """Put together what the stages found, and judge it."""
    recipe, loaded = context.resolved, context.loaded
    benchmarks, plan = outputs.measured.benchmarks, outputs.compact.plan
    files = {name: variant.file() for name, variant in variants(outputs.dense, outputs.exported).items()}
    trained = outputs.compact.notes if isinstance(outputs.compact, Finetune) else {}
    report = Report(
        environment=outputs.measured.environment,
        versions=_versions(),
        recipe=recipe.model_dump(mode="json"),
        dense=Network(onnx_bytes=files[schema.DENSE].bytes, **outputs.reference.quality),
        pruned=Network(**outputs.pruned.quality),
        compact=Network(onnx_bytes=files[schema.COMPACT].bytes, **outputs.compact.quality),
        files=files,
        groups=_cut(loaded, plan, outputs.planned.faults) + untouched(loaded),
        parity=outputs.exported.parity,
        benchmarks=benchmarks,
        seconds=dict(context.stages.seconds),
        gates=outputs.selected.curve if isinstance(outputs.selected, LearnGates) else [],
        batch=outputs.measured.batch,
        warnings=_warnings(recipe, benchmarks) + _not_refitted(outputs.pruned) + _inexact(plan),
        **trained,
        **outputs.planned.notes,
        task=recipe.task,
        quality=quality_of(context.task),
    )
    if report.speed:
        report.warnings.extend([*_short(report.speed), *_over(report.speed, benchmarks[0])])
    if report.finetune:
        report.warnings.extend(_training(report.finetune, recipe.finetune.rate))
    return report.model_copy(update={"accept": judge(recipe.accept, recipe.compress.target, report, baseline)})


def publish(report: Report, context: RunContext, outputs: StageOutputs) -> None:
    """Put the results into the run directory, each file at once, the report last."""
    run_dir, measured = context.stages.run_dir, outputs.measured.directory
    samples = [measured / samples_name(batch) for batch in context.recipe.benchmark.batch_sizes]
    parts = [part for variant in variants(outputs.dense, outputs.exported).values() for part in variant.parts()]
    for path in [*parts, *outputs.compact.files, *samples]:
        copy_atomically(path, run_dir / path.name)
    write_atomically(run_dir / "recipe.yaml", dump_recipe(context.resolved).encode())
    write_report(report, run_dir, read_samples(run_dir, report))


def read_samples(run_dir: Path, report: Report) -> Samples:
    """Return the raw latencies of every benchmark; none where their files were taken away."""
    paths = [run_dir / samples_name(benchmark.batch) for benchmark in report.benchmarks]
    if not all(path.is_file() for path in paths):
        return ()
    measurements = [Measurement.from_samples(path) for path in paths]
    return [{name: values.ravel().tolist() for name, values in m.samples.items()} for m in measurements]


def _cut(loaded: LoadedModel, plan: Plan, faults: Mapping[str, str]) -> list[Group]:
    kept = {name: len(units) for name, units in plan.kept.items()}
    sizes = {g.name: {"reason": faults[g.name]} if g.name in faults else {"kept": kept[g.name]} for g in loaded.groups}
    named = ((g, {"name": g.name, "layers": layers(g), "size": g.size, "inexact": g.inexact}) for g in loaded.groups)
    return [Group(**known, **sizes[g.name]) for g, known in named]


def _inexact(plan: Plan) -> list[str]:
    cut = [p.group.name for p in plan.groups if p.group.inexact and p.dropped]
    return [f"inexact: layer norms read {', '.join(cut)}, so that what is left computes something else"] if cut else []


def _not_refitted(pruned: Shrink) -> list[str]:
    entries = pruned.refits
    if entries and not any(entry.applied or entry.before for entry in entries):
        return [f"no layer was refitted: that takes at least {FEWEST} calibration images and layers that run once"]
    worse = [entry.layer for entry in entries if entry.before > 0 and not entry.applied]
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


def _training(found: Delivered, rate: float) -> list[str]:
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
