"""What a recipe is about: the network, its weights and its channel groups. Faults are found before any long work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor import plugins
from compressor.budget.allocate import narrowest
from compressor.budget.cost import Cost, measure_cost
from compressor.budget.model import CostModel
from compressor.budget.product import ProductCost
from compressor.data import Data
from compressor.errors import InputError
from compressor.gates.base import Gate
from compressor.gates.settings import is_gate, read_gate
from compressor.models.builder import build_model, check_forward, example_inputs
from compressor.models.checkpoint import load_checkpoint
from compressor.recipe import CompressSection, Recipe
from compressor.selection.base import Method
from compressor.structure import find_groups
from compressor.structure.groups import Groups
from compressor.training.schedules.base import Schedule

USUAL_ALIGNMENT = 4
"""Widths that are no multiples of this leave the fast path on most devices."""
MEASURED = ("speedup", "latency_ms")
"""Kinds of targets that are measured in the end; the others can be computed."""


@dataclass(frozen=True)
class Subject:
    """A network that can be compressed.

    Attributes:
        model: The dense network in evaluation mode, with its weights.
        inputs: Random inputs that it takes, a batch of 2.
        groups: Its channel groups.
        cost: What it costs.
        checkpoint_sha256: Of the checkpoint; None where the builder brought the weights.
        entry: Where in the checkpoint the weights were; empty for the top.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    groups: Groups
    cost: Cost
    checkpoint_sha256: str | None
    entry: str = ""


def load_subject(recipe: Recipe, base: Path) -> Subject:
    """Build the network, load its weights and find its groups.

    Args:
        recipe: What to load.
        base: The directory of the recipe.

    Raises:
        InputError: builder, checkpoint, input shape or `compress.keep` is at fault.
    """
    torch.manual_seed(recipe.seed)
    model = build_model(recipe.model, base)
    sha256, entry = None, ""
    if recipe.model.checkpoint is not None:
        loaded = load_checkpoint(model, recipe.model.checkpoint, allow_pickle=recipe.model.allow_pickle)
        sha256, entry = loaded.sha256, loaded.entry
    check_forward(model, recipe.model)
    inputs = example_inputs(recipe.model, batch=2, seed=recipe.seed)
    groups = find_groups(model, inputs, keep=recipe.compress.keep, inexact=recipe.compress.inexact)
    return Subject(model, inputs, groups, measure_cost(model, inputs), sha256, entry)


def make_method(section: CompressSection) -> Method:
    """Return the selection method with its options.

    Raises:
        InputError: there is no such method, or it does not take these options.
    """
    methods = plugins.discover("compressor.selection", Method)
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
    return plugins.find("compressor.selection", Method, init, where="compress.options.init")()


def target_of(section: CompressSection) -> tuple[str, float]:
    """Return the kind of the target and the share to keep."""
    return next((kind, share) for kind, share in section.target if share is not None)


def multiple(section: CompressSection) -> int:
    """Return what kept widths are multiples of where no device was measured."""
    return section.multiple_of or USUAL_ALIGNMENT


def make_cost_model(kind: str, subject: Subject) -> CostModel:
    """Return the cost model that a kind of target is about."""
    build: Any = plugins.find("compressor.budget", ProductCost, kind, where="compress.target")
    model: CostModel = build(subject.model, subject.groups)
    return model


def check_recipe(recipe: Recipe) -> None:
    """Refuse what no network and no data could make right.

    Raises:
        InputError: method, options, schedule or batch sizes are at fault.
    """
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
    cost = make_cost_model(kind, subject)
    smallest = cost.total(narrowest(subject.groups, cost, multiple_of=multiple(section))) / cost.dense
    if share < smallest:
        cure = f"ask for at least {math.ceil(1000 * smallest) / 1000:.3f}, or let more layers be pruned"
        raise InputError(f"{share:g} cannot be reached", where=f"compress.target.{kind}", cure=cure)
