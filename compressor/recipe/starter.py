"""The starter recipe that `compressor init` writes."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from string import Template

from compressor.errors import InputError
from compressor.recipe import check_callable_name
from compressor.support.files import write_atomically
from compressor.support.imports import find_callable
from compressor.support.suggest import nearest
from exporters.providers import PROVIDERS

_IMAGENET = {"input": [3, 224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def write_starter(model: str, out: Path, *, force: bool = False) -> None:
    """Write a commented recipe for a model.

    Args:
        model: The name of a torchvision classifier, or `module:callable`, or `path/to/file.py:callable`.
        out: The file to write.
        force: Overwrite an existing file.

    Raises:
        InputError: torchvision has no such model, there is no such callable, or the file exists.
    """
    if out.exists() and not force:
        raise InputError(
            "already exists", where=str(out), cure="choose another name with --out, or overwrite it with --force"
        )
    values = _of_callable(model, out.parent) if ":" in model else _of_torchvision(model)
    template = files("compressor.recipe").joinpath("templates/recipe.yaml").read_text(encoding="utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, Template(template).substitute(values, file=out, providers=" | ".join(PROVIDERS)).encode())


def _of_callable(reference: str, base: Path) -> dict[str, object]:
    """Values for a builder of the user's own, its file relative to the recipe's directory."""
    try:
        target, _, name = check_callable_name(reference).rpartition(":")
    except ValueError as error:
        raise InputError(str(error), where=f"MODEL '{reference}'", cure="correct the name") from error
    find_callable(reference, where="MODEL")
    if target.endswith(".py"):
        target = Path(os.path.relpath(target, base)).as_posix()
    return _IMAGENET | {"builder": json.dumps(f"{target}:{name}", ensure_ascii=False), "checkpoint": "checkpoint.pth"}


def _of_torchvision(name: str) -> dict[str, object]:
    """Values for a torchvision classifier: the input it was published with."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = nearest(name, known, 3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        cure = f"{hint}or name your own: module:callable, or path/to/file.py:callable"
        raise InputError(f"torchvision has no classifier '{name}'", where="MODEL", cure=cure)
    preset = models.get_model_weights(name).DEFAULT.transforms()
    size = preset.crop_size[0]
    values = {"input": [3, size, size], "mean": preset.mean, "std": preset.std}
    return values | {"builder": f"torchvision.models:{name}", "checkpoint": f"{name}.pth"}
