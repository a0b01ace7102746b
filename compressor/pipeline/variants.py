"""The ONNX files of a run, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compressor.pipeline.stages.export_compact import ExportCompact
from compressor.pipeline.stages.export_dense import ExportDense
from compressor.report import schema


@dataclass(frozen=True)
class Variant:
    """An ONNX file of a run: where it is, and what it computes."""

    path: Path
    network: Literal["dense", "compact"]
    precision: str = schema.FP32

    def file(self) -> schema.File:
        """Return what the report says of it."""
        size = sum(path.stat().st_size for path in self.parts())
        return schema.File(network=self.network, bytes=size, precision=self.precision)

    def parts(self) -> list[Path]:
        """Return the file, and the weights beside it where it is too large for one."""
        return sorted(self.path.parent.glob(f"{self.path.name}*"))


def variants(dense: ExportDense, exported: ExportCompact) -> dict[str, Variant]:
    """Return the files of a run by name, in the order of all tables; they are measured side by side."""
    return {schema.DENSE: Variant(dense.file, "dense"), schema.COMPACT: Variant(exported.file, "compact")}
