"""The schema of recipe.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """Which architecture, and which weights."""

    builder: str
    args: dict[str, Any] = {}
    checkpoint: Path | None = None
    allow_pickle: bool = False
    input: tuple[int, ...] = Field(min_length=1)


class Normalize(Section):
    """Per-channel mean and standard deviation of inputs in 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class DataSection(Section):
    """Where batches come from."""

    source: str
    root: Path | None = None
    args: dict[str, Any] = {}
    normalize: Normalize | None = None
    batch_size: int = Field(128, ge=1)
    workers: int = Field(0, ge=0)
    augment: bool = True


class Target(Section):
    """Exactly one budget: fractions that are kept."""

    macs: float | None = Field(None, gt=0, le=1)
    params: float | None = Field(None, gt=0, le=1)
    size: float | None = Field(None, gt=0, le=1)


class CalibrationSection(Section):
    """How many training images the selection looks at."""

    images: int = Field(1024, ge=1)


class CompressSection(Section):
    """How units are chosen, and how many."""

    method: str = "imitation"
    options: dict[str, Any] = {}
    target: Target
    calibration: CalibrationSection = CalibrationSection()
    keep: tuple[str, ...] = ()
    refit: bool = True
    multiple_of: int = Field(1, ge=1)


class FinetuneSection(Section):
    """Training after the cut."""

    epochs: int = Field(10, ge=0)
    lr: float = Field(0.02, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    schedule: str = "cosine"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    distill: bool = True
    temperature: float = Field(4.0, gt=0)
    distill_weight: float = Field(0.9, ge=0, le=1)


class ExportSection(Section):
    """How the ONNX files are written."""

    opset: int = Field(20, ge=17)
    dynamic_batch: bool = True


class BenchmarkSection(Section):
    """How latency is measured."""

    provider: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(1, ge=1)
    batch_sizes: tuple[int, ...] = (1,)
    seconds: float = Field(5.0, gt=0)


class AcceptSection(Section):
    """What must hold for the run to be accepted."""

    accuracy_drop: float | None = Field(None, ge=0, le=1)
    speedup: float | None = Field(None, gt=0)
    parity: float | None = Field(1e-4, gt=0)


class Recipe(Section):
    """Everything that a run depends on."""

    model: ModelSection
    data: DataSection
    compress: CompressSection
    finetune: FinetuneSection = FinetuneSection()
    export: ExportSection = ExportSection()
    benchmark: BenchmarkSection = BenchmarkSection()
    accept: AcceptSection = AcceptSection()
    seed: int = 0
