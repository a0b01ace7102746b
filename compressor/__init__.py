"""Makes a trained network smaller and measurably faster: checkpoint in, compact ONNX model out, with a verdict."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compressor.pipeline import compress
    from compressor.recipe import Recipe, load_recipe
    from compressor.report import Report
    from compressor.structure import ChannelGroup, Plan, find_groups, load_compact, masked, save_compact, shrink, verify
    from compressor.tasks import Task

__version__ = "0.1.0"

__all__ = [
    "ChannelGroup",
    "Plan",
    "Recipe",
    "Report",
    "Task",
    "compress",
    "find_groups",
    "load_compact",
    "load_recipe",
    "masked",
    "save_compact",
    "shrink",
    "verify",
]

_HOMES = {"compress": "pipeline", "Recipe": "recipe", "load_recipe": "recipe", "Report": "report", "Task": "tasks"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `import compressor` costs next to nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'compressor' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"compressor.{_HOMES.get(name, 'structure')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
