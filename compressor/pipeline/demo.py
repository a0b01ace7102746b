"""The demonstration: train a small network on handwritten digits, then compress it like anybody's checkpoint."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path
from string import Template

import torch
from torch import nn

from compressor.data import load_data
from compressor.errors import InputError
from compressor.models.digits import digits_resnet
from compressor.recipe import Recipe, load_recipe
from compressor.report import Report
from compressor.support.files import write_atomically
from compressor.support.progress import Journal
from compressor.tasks import evaluate
from compressor.training.loop import finetune

TRAINING = {"epochs": 6, "lr": 0.05, "distill": False}


def run_demo(out: Path) -> Report:
    """Train, write `out/digits.pth` and `out/recipe.yaml`, and compress into `out/run`.

    Args:
        out: Where everything is written; made when missing.

    Returns:
        The report of the run.

    Raises:
        InputError: `out` cannot be written.
    """
    from compressor.pipeline import compress

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "recipe.yaml", recipe_text("recipe.yaml", "digits.pth").encode())
    except OSError as error:
        raise InputError(f"it cannot be written ({error})", where=str(out), cure="choose another --out") from error
    journal = Journal(out / "log.txt")
    recipe = load_recipe(out / "recipe.yaml")
    model = train(recipe, journal)
    checkpoint = io.BytesIO()
    torch.save(model.state_dict(), checkpoint)
    write_atomically(out / "digits.pth", checkpoint.getbuffer())
    return compress(out / "recipe.yaml", out=out / "run")


def recipe_text(file: str, checkpoint: str) -> str:
    """The demonstration's recipe, to be written to `file`, with the path of its checkpoint."""
    template = files("compressor.recipe").joinpath("templates/digits.yaml").read_text(encoding="utf-8")
    return Template(template).substitute(file=file, checkpoint=checkpoint)


def train(recipe: Recipe, journal: Journal) -> nn.Module:
    """Train the network of the demonstration from scratch; the same seed gives the same weights."""
    data = load_data(recipe.data, recipe.model.input, recipe.seed)
    assert data.train is not None and data.validation is not None
    torch.manual_seed(recipe.seed)
    model = digits_resnet()
    settings = recipe.finetune.model_copy(update=TRAINING)
    journal.say(f"training a small network on handwritten digits, {settings.epochs} epochs")
    with journal.bar("training") as advance:
        finetune(
            model,
            None,
            data.train,
            settings,
            seed=recipe.seed,
            progress=lambda p: advance(p.step, p.steps, f"loss {p.loss:.3f}"),
        )
    journal.say(f"it recognises {evaluate(model, data.validation).main:.1%} of the digits that it has not seen")
    return model
