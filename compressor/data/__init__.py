"""Where batches come from: image folders, torchvision data sets, digits, the user's own."""

from __future__ import annotations

from compressor.data.base import Data, Source
from compressor.data.calibration import calibration_batches, other_batches
from compressor.data.held_out import hold_out
from compressor.recipe import DataSection
from compressor.support.plugins import find

__all__ = ["Data", "Source", "calibration_batches", "hold_out", "load_data", "other_batches"]


def load_data(section: DataSection, model_input: tuple[int, ...], seed: int) -> Data:
    """Open the data that a recipe names; arguments, result and errors are those of `Source.load`."""
    kind, separator, _ = section.source.partition(":")
    name = "custom" if separator and kind != "torchvision" else kind
    return find("compressor.data", Source, name, where="data.source")().load(section, model_input, seed)
