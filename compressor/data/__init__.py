"""Where batches come from: image folders, torchvision data sets, digits, the user's own."""

from __future__ import annotations

from dataclasses import replace

from compressor.data.base import Data, Source
from compressor.data.calibration import calibration_batches, other_batches
from compressor.data.held_out import hold_out
from compressor.recipe import DataSection
from compressor.support.plugins import find
from compressor.tasks import DEFAULT, Task

__all__ = ["Data", "Source", "calibration_batches", "hold_out", "load_data", "other_batches"]


def load_data(section: DataSection, model_input: tuple[int, ...], seed: int, task: Task = DEFAULT) -> Data:
    """Open the data that a recipe names, for a task; all else is as in `Source.load`."""
    kind, separator, _ = section.source.partition(":")
    name = "custom" if separator and kind != "torchvision" else kind
    source = find("compressor.data", Source, name, where="data.source")(task)
    return replace(source.load(section, model_input, seed), task=task)
