"""A compact network on disk, as several stages leave one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from compressor.pipeline.stages.base import Stage
from compressor.pipeline.stages.quality import read_quality
from compressor.structure import Plan, load_compact
from compressor.structure.store import PLAN, WEIGHTS


class CompactStage(Stage):
    """A stage that leaves a compact network."""

    def load(self) -> nn.Module:
        """Return the compact network."""
        return load_compact(self.directory, self.context.loaded.model)

    @property
    def files(self) -> list[Path]:
        """Plain weights and the plan."""
        return [self.directory / WEIGHTS, self.directory / PLAN]

    @property
    def plan(self) -> Plan:
        """The plan that it was shrunk by."""
        return Plan.load(self.directory / PLAN)

    @property
    def quality(self) -> dict[str, Any]:
        """Cost and accuracy."""
        return read_quality(self.directory)
