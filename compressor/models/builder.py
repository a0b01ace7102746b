"""From a recipe's `model` section to a network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.recipe import ModelSection
from compressor.support.imports import call_named


def build_model(section: ModelSection, base: Path) -> nn.Module:
    """Build the architecture, with whatever weights its builder gives it.

    Args:
        section: The recipe's `model` section.
        base: Directory of the recipe.

    Returns:
        The network in evaluation mode.

    Raises:
        InputError: the builder does not exist, does not take the arguments, raises, or returns no module.
    """
    model = call_named(section.builder, section.args, where="model.builder", where_args="model.args", base=base)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{section.builder} returned {type(model).__name__}, not a torch.nn.Module",
            where="model.builder",
            cure="let the callable return the network",
        )
    return model.eval()


def example_inputs(section: ModelSection, batch: int = 2, seed: int = 0) -> tuple[Tensor]:
    """Random normal inputs of shape [batch, *model.input]."""
    return (torch.randn(batch, *section.input, generator=torch.Generator().manual_seed(seed)),)


def check_forward(model: nn.Module, section: ModelSection) -> None:
    """Prove that the network takes inputs of the recipe's shape.

    Raises:
        InputError: it raises, or returns something else than one tensor with a row for every input.
    """
    inputs = example_inputs(section)
    shape = list(inputs[0].shape)
    try:
        with torch.no_grad():
            output = model(*inputs)
    except Exception as error:
        raise InputError(
            f"the network does not take an input of shape {shape} (batch first); {type(error).__name__}: {error}",
            where="model.input",
            cure="give the shape of one input without the batch, such as [3, 224, 224]",
        ) from error
    if not isinstance(output, Tensor) or output.shape[:1] != inputs[0].shape[:1]:
        what = f"a tensor of shape {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise InputError(
            f"for an input of shape {shape} the network returns {what}",
            where="model.builder",
            cure="let the builder return a network whose output is one tensor, with the batch first",
        )
