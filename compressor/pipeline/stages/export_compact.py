"""The compact network as an ONNX file, compared with the module on real inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from compressor.pipeline.context import PARITY_BATCHES, RunContext
from compressor.pipeline.stages.base import Stage
from compressor.pipeline.stages.compact import CompactStage
from compressor.recipe import dump_recipe
from compressor.report.measured import parity_of
from compressor.report.schema import Parity
from compressor.support.files import read_facts, write_facts
from exporters.parity import check_parity

PARITY = "parity.json"


class ExportCompact(Stage):
    """Writes the compact network's file.

    Args:
        context: What all stages share.
        compact: Leaves the network that is delivered.
    """

    name = "export-compact"

    def __init__(self, context: RunContext, compact: CompactStage) -> None:
        super().__init__(context)
        self.compact = compact

    @cached_property
    def _recipe_hash(self) -> str:
        return hashlib.sha256(dump_recipe(self.context.resolved).encode()).hexdigest()

    def depends_on(self) -> Mapping[str, Any]:
        return {"compact": self.compact.files, "recipe": self._recipe_hash} | self.context.export_settings()

    def work(self, directory: Path) -> None:
        context, model, path = self.context, self.compact.load(), directory / "compact.onnx"
        cost = self.compact.quality
        metadata = {f"compressor.compact_{name}": str(cost[name]) for name in ("params", "macs")}
        context.export(model, path, metadata | {"compressor.recipe_sha256": self._recipe_hash})
        parity = check_parity(model, path, context.real_inputs, batch_sizes=PARITY_BATCHES)
        write_facts(directory / PARITY, parity_of(parity))

    @property
    def file(self) -> Path:
        """The ONNX file."""
        return self.directory / "compact.onnx"

    @property
    def parity(self) -> Parity:
        """The largest differences between file and module."""
        return read_facts(self.directory / PARITY, Parity)
