"""Faults of recipe, data and target that are found before any long work."""

from __future__ import annotations

import math

from compressor.budget.allocate import narrowest
from compressor.budget.targets.base import MEASURED, make_cost_model, multiple, target_of
from compressor.data import Data
from compressor.errors import InputError
from compressor.gates.base import Gate
from compressor.gates.settings import is_gate, read_gate
from compressor.pipeline.loading import Subject
from compressor.recipe import CompressSection, Recipe
from compressor.selection.base import Method
from compressor.support import plugins
from compressor.tasks import find_task
from compressor.training.schedules.base import Schedule


def make_method(section: CompressSection) -> Method:
    """Return the selection method with its options.

    Raises:
        InputError: there is no such method, or it does not take these options.
    """
    methods = plugins.discover("compressor.selection.methods", Method)
    if section.method not in methods:
        raise plugins.unknown(
            section.method, [*methods, *plugins.discover("compressor.gates", Gate)], where="compress.method"
        )
    kind = methods[section.method]
    return kind(**plugins.read_options(kind, section.options, where="compress.options"))


def first_method(section: CompressSection) -> Method | None:
    """Return the method that ranks units before anything is trained: none where gates start open.

    Raises:
        InputError: method, options or epochs are at fault.
    """
    if not is_gate(section):
        method = make_method(section)
        if section.epochs is not None:
            cure = "remove the key, or choose a gate as the method (`compressor methods`)"
            raise InputError(f"'{section.method}' trains nothing", where="compress.epochs", cure=cure)
        return method
    init = read_gate(section)[1].init
    if init == "open":
        return None
    return plugins.find("compressor.selection.methods", Method, init, where="compress.options.init")()


def check_recipe(recipe: Recipe) -> None:
    """Refuse what no network and no data could make right.

    Raises:
        InputError: task, method, options, schedule or batch sizes are at fault.
    """
    find_task(recipe.task)
    first_method(recipe.compress)
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


def check_target(subject: Subject, section: CompressSection) -> None:
    """Refuse a target that no choice of widths reaches.

    Raises:
        InputError: with the smallest share that can be reached.
    """
    if not subject.groups:
        reasons = dict.fromkeys(skipped.reason for skipped in subject.groups.skipped)
        problem = f"no channel group can be cut: {'; '.join(reasons) or 'the network has no layers with channels'}"
        raise InputError(problem, where="model", cure="compress another network, or put less into compress.keep")
    kind, share = target_of(section)
    if kind == "loss" and is_gate(section):
        cure = "choose a method that ranks, such as 'imitation', or another target"
        raise InputError("gates cannot be driven to a loss", where="compress.target.loss", cure=cure)
    if kind in (*MEASURED, "loss"):
        return
    cost = make_cost_model(kind, subject.model, subject.groups)
    smallest = cost.total(narrowest(subject.groups, cost, multiple_of=multiple(section))) / cost.dense
    if share < smallest:
        cure = f"ask for at least {math.ceil(1000 * smallest) / 1000:.3f}, or let more layers be pruned"
        raise InputError(f"{share:g} cannot be reached", where=f"compress.target.{kind}", cure=cure)
