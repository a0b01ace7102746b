"""Faults of recipe, data and target that are found before any long work."""

from __future__ import annotations

from pathlib import Path

from compressor.budget.targets.base import USUAL_ALIGNMENT, make_target
from compressor.data import Data
from compressor.errors import InputError
from compressor.gates.settings import is_gate
from compressor.pipeline.context import RunContext
from compressor.pipeline.loading import LoadedModel
from compressor.pipeline.methods import first_method
from compressor.recipe import CompressSection, Recipe
from compressor.selection.base import Method
from compressor.support import plugins
from compressor.tasks import find_task
from compressor.training.length import count_batches
from compressor.training.schedules.base import Schedule
from exporters.cores import doubt, usable_cores
from exporters.errors import ExportError
from exporters.runtime import check_threads


def check_recipe(recipe: Recipe, folder: Path | None = None) -> None:
    """Refuse what no network and no data could make right.

    Args:
        recipe: What to do.
        folder: Directory of the recipe.

    Raises:
        InputError: task, method, options, schedule or batch sizes are at fault.
    """
    find_task(recipe.task)
    first_method(recipe.compress, folder)
    plugins.find("compressor.training.schedules", Schedule, recipe.finetune.schedule, where="finetune.schedule")
    if recipe.compress.inexact and not recipe.finetune.epochs:
        cure = "set finetune.epochs to 1 or more, or compress.inexact: false"
        raise InputError("what inexact cuts change, only training makes up for", where="compress.inexact", cure=cure)
    if not recipe.export.dynamic_batch and len(recipe.benchmark.batch_sizes) > 1:
        cure = "set export.dynamic_batch: true, or measure one batch size"
        raise InputError("files of a fixed batch run at one batch size", where="benchmark.batch_sizes", cure=cure)


def check_data(recipe: Recipe, method: Method | None, data: Data) -> None:
    """Refuse work that needs labels on data that has none.

    Raises:
        InputError: the method or fine-tuning needs labels.
    """
    if (is_gate(recipe.compress) or (method and method.needs_labels)) and not data.labelled:
        cure = "choose a method that needs none (`compressor methods`), or give data with labels"
        problem = f"'{recipe.compress.method}' needs labels, the data has none"
        raise InputError(problem, where="compress.method", cure=cure)
    if recipe.finetune.epochs and data.train is None:
        cure = "set finetune.epochs: 0, or give data with labels"
        raise InputError("fine-tuning needs labels, the data has none", where="finetune.epochs", cure=cure)


def check_target(loaded: LoadedModel, section: CompressSection) -> None:
    """Refuse a target that no choice of widths reaches.

    Raises:
        InputError: with the smallest share that can be reached.
    """
    if not loaded.groups:
        reasons = dict.fromkeys(skipped.reason for skipped in loaded.groups.skipped)
        problem = f"no channel group can be cut: {'; '.join(reasons) or 'the network has no layers with channels'}"
        raise InputError(problem, where="model", cure="compress another network, or put less into compress.keep")
    target = make_target(section.target.asked)
    if is_gate(section) and not target.drives_gates:
        cure = "choose a method that ranks, such as 'imitation', or another target"
        raise InputError(
            f"gates cannot be driven to a {target.name}", where=f"compress.target.{target.name}", cure=cure
        )
    target.check(loaded.model, loaded.groups, section.multiple_of or USUAL_ALIGNMENT)


def check_run(context: RunContext) -> None:
    """Find the faults of recipe, network and data before any long work.

    Raises:
        InputError: one of them is at fault.
    """
    recipe, journal = context.recipe, context.journal
    journal.say("checking recipe, network and data")
    if context.loaded.entry:
        journal.say(f"the weights are those of '{context.loaded.entry}' in {recipe.model.checkpoint}")
    check_recipe(recipe, context.base)
    check_target(context.loaded, recipe.compress)
    if context.table:
        journal.say(f"latencies are those of {recipe.benchmark.table}")
    _check_threads(context, recipe.benchmark.threads)
    check_data(recipe, context.method, context.data)
    if recipe.finetune.epochs and context.data.train is not None:
        count_batches(context.data.train)
    shape, expected = list(context.real_inputs[0].shape[1:]), list(recipe.model.input)
    if shape != expected:
        cure = "let the data give inputs of that shape, or correct model.input"
        raise InputError(f"inputs are of shape {shape}, model.input is {expected}", where="data.source", cure=cure)


def _check_threads(context: RunContext, threads: int) -> None:
    try:
        check_threads(threads)
    except ExportError as error:
        raise InputError(error.problem, where="benchmark.threads", cure=error.cure) from error
    if problem := doubt(threads, usable_cores()):
        context.journal.say(f"benchmark.threads: {problem}")
