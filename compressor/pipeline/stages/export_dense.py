"""The dense network as an ONNX file: what all others are measured against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.errors import MachineError
from compressor.pipeline.stages.base import Stage
from exporters.errors import ProviderUnavailableError
from exporters.runtime import create_session


class ExportDense(Stage):
    """Writes the dense network, and sees whether it opens where it will be measured."""

    name = "export-dense"

    def depends_on(self) -> Mapping[str, Any]:
        return self.context.export_settings()

    def work(self, directory: Path) -> None:
        self.context.export(self.context.loaded.model, directory / "dense.onnx", {})

    @property
    def file(self) -> Path:
        """The ONNX file."""
        return self.directory / "dense.onnx"

    def check_opens(self) -> None:
        """Open the file with the provider of the recipe.

        Raises:
            MachineError: the provider is not active here.
        """
        try:
            if self.file.exists():  # not so in a rehearsal
                create_session(self.file, provider=self.context.recipe.benchmark.provider)
        except ProviderUnavailableError as error:
            raise MachineError(error.problem, where="benchmark.provider", cure=error.cure) from error
