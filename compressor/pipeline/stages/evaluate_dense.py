"""How good the dense network is: what is to be kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.pipeline.stages.base import Stage
from compressor.pipeline.stages.quality import assess, read_quality


class EvaluateDense(Stage):
    """Measures what is to be kept."""

    name = "evaluate-dense"
    together = True

    def depends_on(self) -> Mapping[str, Any]:
        return {}

    def work(self, directory: Path) -> None:
        self.context.check_memory()
        assess(self.context, self.context.loaded.model, directory, "dense", together=True)

    @property
    def quality(self) -> dict[str, Any]:
        """Cost and accuracy."""
        return read_quality(self.directory)
