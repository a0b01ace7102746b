"""What a recipe is about: the network, its weights and its channel groups. Faults are found before any long work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.budget.costs.measure import Cost, measure_cost
from compressor.models.builder import build_model, check_forward, example_inputs
from compressor.models.checkpoint import load_checkpoint
from compressor.recipe import Recipe
from compressor.structure import find_groups
from compressor.structure.groups import Groups


@dataclass(frozen=True)
class LoadedModel:
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


def load_model(recipe: Recipe, base: Path) -> LoadedModel:
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
    return LoadedModel(model, inputs, groups, measure_cost(model, inputs), sha256, entry)
