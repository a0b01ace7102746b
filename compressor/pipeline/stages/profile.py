"""What the network's operators cost on the device, at all widths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.budget.costs.base import CostModel
from compressor.budget.latency.build import WHY_NOT, profile, read_cost, settings_of
from compressor.pipeline.stages.base import Stage
from compressor.support.files import sha256
from exporters.operators import device


class Profile(Stage):
    """Measures the latency table of the network, or takes the one that the recipe names."""

    name = "profile"

    def depends_on(self) -> Mapping[str, Any]:
        recipe = self.context.recipe
        table = recipe.benchmark.table if self.context.table else None
        structure = recipe.compress.model_dump(mode="json", include={"keep", "inexact"})
        device_and_settings = {"settings": settings_of(recipe.benchmark), "device": device()}
        return self.context.export_settings() | device_and_settings | {"table": table and sha256(table)} | structure

    def work(self, directory: Path) -> None:
        context = self.context
        profile(
            context.loaded.model,
            context.loaded.groups,
            context.recipe.benchmark,
            context.table,
            context.export_plain,
            directory,
            context.journal,
            fresh=self.name in context.stages.repeated,
        )

    @property
    def cost(self) -> CostModel:
        """Milliseconds of the network at any widths; multiply-adds where there is no table."""
        return read_cost(self.directory, self.context.loaded.model, self.context.loaded.groups)

    @property
    def why_not(self) -> str:
        """Why there is no table, where there is none."""
        return (self.directory / WHY_NOT).read_text()
