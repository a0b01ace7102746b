"""The stages of one run, in their order."""

from __future__ import annotations

import copy

from compressor.gates.settings import is_gate
from compressor.pipeline.checks import check_run
from compressor.pipeline.context import RunContext
from compressor.pipeline.facts import facts_of
from compressor.pipeline.forecast import describe, forecast
from compressor.pipeline.results import StageOutputs, make_report, publish
from compressor.pipeline.stages.benchmark import MeasureFiles
from compressor.pipeline.stages.evaluate_dense import EvaluateDense
from compressor.pipeline.stages.export_compact import ExportCompact
from compressor.pipeline.stages.export_dense import ExportDense
from compressor.pipeline.stages.finetune import Finetune
from compressor.pipeline.stages.learn_gates import LearnGates
from compressor.pipeline.stages.plan import ChoosePlan, Question
from compressor.pipeline.stages.profile import Profile
from compressor.pipeline.stages.select import Select
from compressor.pipeline.stages.shrink import Shrink
from compressor.pipeline.store import Rehearsal
from compressor.report import Report
from compressor.support import distributed


def execute(context: RunContext, baseline: Report | None = None) -> Report:
    """Do every stage that is not done yet, judge, and write the results.

    Args:
        context: The recipe at work.
        baseline: An earlier report to judge by.
    """
    distributed.lead(lambda: check_run(context))
    distributed.lead(lambda: tell_forecast(context))
    outputs = walk(context)
    return distributed.lead(lambda: _report(context, outputs, baseline))


def walk(context: RunContext) -> StageOutputs:
    """Do every stage that is not done yet, in order."""
    dense, reference, profile = ExportDense(context), EvaluateDense(context), Profile(context)
    question = Question(context, dense, profile)
    selected = LearnGates(context, question) if is_gate(context.recipe.compress) else Select(context)
    planned = ChoosePlan(context, question, selected)
    pruned = Shrink(context, planned, selected)
    compact = Finetune(context, pruned) if context.recipe.finetune.epochs else pruned
    exported = ExportCompact(context, compact)
    measured = MeasureFiles(context, dense, compact, exported)
    dense.check_opens()
    for stage in (reference, selected, planned, pruned, compact, exported, measured):
        _ = stage.directory
    return StageOutputs(dense, reference, selected, planned, pruned, compact, exported, measured)


def tell_forecast(context: RunContext) -> None:
    """Tell how long the stages that are not done yet will take."""
    rehearsal, stages = copy.copy(context), Rehearsal(context.stages)
    rehearsal.stages, rehearsal.origin = stages, context.origin
    walk(rehearsal)
    expected = forecast(facts_of(context)) if any(stages.missing.values()) else {}
    seconds = {name: round(missing * expected.get(name, 0.0), 1) for name, missing in stages.missing.items()}
    context.journal.say(describe(seconds), event="forecast", seconds=seconds)


def _report(context: RunContext, outputs: StageOutputs, baseline: Report | None) -> Report:
    """Judge what the stages found, and write the results."""
    report = make_report(context, outputs, baseline)
    publish(report, context, outputs)
    file = context.stages.run_dir / "report.html"
    context.journal.say(f"wrote {file}", event="report", path=str(file), accepted=report.accepted)
    return report
