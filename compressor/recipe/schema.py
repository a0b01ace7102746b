"""The schema of recipe.yaml, and reading and writing it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from compressor.errors import InputError
from compressor.recipe import strict_yaml
from compressor.recipe.faults import describe, explain

_MAX_BYTES = 100_000
FULL_RATE = 0.02
"""The learning rate of a long training, where the recipe gives none."""


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def check_callable_name(reference: str) -> str:
    """Return `reference` if it has the form `module:callable` or `path/to/file.py:callable`, else raise ValueError."""
    target, _, name = reference.rpartition(":")
    is_file = target.endswith(".py") and target != ".py"
    if not _is_dotted(name) or not (is_file or _is_dotted(target)):
        raise ValueError("expected module:callable or path/to/file.py:callable")
    return reference


def _form_of_source(source: str) -> str:
    if source.isidentifier():
        return source
    try:
        return check_callable_name(source)
    except ValueError:
        raise ValueError("expected imagefolder, torchvision:<Dataset>, digits, or module:callable") from None


def _absolute(path: Path | str, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return Path(os.path.abspath(base / Path(path).expanduser())) if base else Path(path)


def _absolute_file(reference: str, info: ValidationInfo) -> str:
    target, _, name = reference.rpartition(":")
    return f"{_absolute(target, info)}:{name}" if target.endswith(".py") else reference


def _not_empty(values: tuple[int, ...]) -> tuple[int, ...]:
    if not values:
        raise ValueError("expected at least one number")
    return values


CallableName = Annotated[str, AfterValidator(check_callable_name), AfterValidator(_absolute_file)]
SourceName = Annotated[str, AfterValidator(_form_of_source), AfterValidator(_absolute_file)]
RecipePath = Annotated[Path, Field(strict=False), AfterValidator(_absolute)]
PositiveInts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(_not_empty)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values keep their types and cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _list_as_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class ModelSection(Section):
    """Which architecture, and which weights."""

    builder: CallableName
    args: dict[str, Any] = {}
    checkpoint: RecipePath | None = None
    allow_pickle: bool = False
    input: PositiveInts


class Normalize(Section):
    """Per-channel mean and standard deviation of inputs in 0..1."""

    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(f"expected as many values in mean as in std, got {len(self.mean)} and {len(self.std)}")
        return self


class DataSection(Section):
    """Where batches come from."""

    source: SourceName
    root: RecipePath | None = None
    args: dict[str, Any] = {}
    normalize: Normalize | None = None
    batch_size: int = Field(128, ge=1)
    workers: int = Field(0, ge=0, le=1024)
    augment: bool = True


class Target(Section):
    """Exactly one budget: fractions that are kept, or what is measured in the end."""

    macs: float | None = Field(None, gt=0, le=1)
    params: float | None = Field(None, gt=0, le=1)
    size: float | None = Field(None, gt=0, le=1)
    speedup: float | None = Field(None, gt=1)
    latency_ms: float | None = Field(None, gt=0)
    loss: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [f"{name}: {value}" for name, value in self if value is not None]
        if len(given) != 1:
            got = ", ".join(given) or "none"
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}; got {got}")
        return self


class CalibrationSection(Section):
    """How many training images the selection looks at."""

    images: int = Field(1024, ge=1)


class CompressSection(Section):
    """How units are chosen, and how many."""

    method: str = "imitation"
    epochs: int | None = Field(None, ge=1, le=1_000_000)
    options: dict[str, Any] = {}
    target: Target
    calibration: CalibrationSection = CalibrationSection()
    keep: tuple[str, ...] = ()
    inexact: bool = False
    refit: bool = True
    refit_mixing: float = Field(1.0, gt=0, le=1)
    multiple_of: int | None = Field(None, ge=1)


class FinetuneSection(Section):
    """Training after the cut; without `lr`, its rate follows from the number of steps."""

    epochs: int = Field(10, ge=0, le=1_000_000)
    lr: float | None = Field(None, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    schedule: str = "llr"
    original_epochs: int = Field(100, ge=1)
    average: float = Field(0.0, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    distill: bool = True
    temperature: float = Field(4.0, gt=0)
    distill_weight: float = Field(0.9, ge=0, le=1)
    distill_features: float = Field(0.0, ge=0)
    revive: float = Field(0.0, ge=0, lt=1)
    accumulate: int = Field(1, ge=1)
    clip: float | None = Field(None, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return FULL_RATE if self.lr is None else self.lr


class ExportSection(Section):
    """How the ONNX files are written."""

    opset: int = Field(20, ge=17)
    dynamic_batch: bool = True


class BenchmarkSection(Section):
    """How latency is measured."""

    provider: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(1, ge=1)
    batch_sizes: PositiveInts = (1,)
    seconds: float = Field(5.0, gt=0)
    table: RecipePath | None = None


class BaselineSection(Section):
    """How much worse than an earlier accepted report a run may be; None judges nothing."""

    accuracy_drop: float | None = Field(0.005, ge=0, le=1)
    slowdown: float | None = Field(0.05, ge=0)


class AcceptSection(Section):
    """What must hold for the run to be accepted; None asks for nothing."""

    accuracy_drop: float | None = Field(0.02, ge=0, le=1)
    speedup: float | None = Field(1.0, gt=0)
    parity: float | None = Field(1e-4, gt=0)
    params: int | None = Field(None, ge=1)
    size_mb: float | None = Field(None, gt=0)
    p99_ms: float | None = Field(None, gt=0)
    peak_mb: float | None = Field(None, gt=0)
    baseline: BaselineSection = BaselineSection()


class Recipe(Section):
    """Everything that a run depends on."""

    task: str = "classification"
    model: ModelSection
    data: DataSection
    compress: CompressSection
    finetune: FinetuneSection = FinetuneSection()
    export: ExportSection = ExportSection()
    benchmark: BenchmarkSection = BenchmarkSection()
    accept: AcceptSection = AcceptSection()
    seed: int = Field(0, ge=0, lt=2**32)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; relative paths in it are relative to its directory.

    Args:
        path: The YAML file.
        overrides: Changes of single keys, each `key.path=value` with the value in YAML.

    Returns:
        The recipe with every default filled in and every path absolute.

    Raises:
        InputError: naming every fault of the recipe and of the overrides at once.
    """
    path = Path(path)
    data, faults = _parse(_read(path), path)
    for override in overrides:
        faults += _apply(data, override)
    try:
        recipe = Recipe.model_validate(data, context={"base": path.parent.absolute()})
    except ValidationError as error:
        raise explain(faults + describe(error, Recipe), where=str(path)) from error
    if faults:
        raise explain(faults, where=str(path))
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML with every default; `load_recipe` reads it back to an equal recipe."""
    return strict_yaml.dump(recipe.model_dump())


def _read(path: Path) -> str:
    cure = "give the path of a recipe; `compressor init MODEL` writes a new one"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"is larger than {_MAX_BYTES} bytes: not a recipe", where=str(path), cure=cure)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("there is no such recipe", where=str(path), cure=cure) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path), cure=cure) from error


def _parse(text: str, path: Path) -> tuple[dict[Any, Any], list[str]]:
    try:
        data, duplicates = strict_yaml.parse(text)
    except strict_yaml.PlainYamlError as error:
        raise InputError(f"is not valid YAML: {error}", where=str(path), cure="correct the line") from error
    if not isinstance(data, Mapping):
        got = "nothing" if data is None else type(data).__name__
        cure = "start from the recipe that `compressor init MODEL` writes"
        raise InputError(f"expected keys such as 'model:' and 'data:', got {got}", where=str(path), cure=cure)
    return dict(data), duplicates


def _apply(data: dict[Any, Any], override: str) -> list[str]:
    """Set one key in place; return what is wrong with the override."""
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        return [f"override '{override}': expected key.path=value, such as finetune.epochs=3"]
    try:
        value, duplicates = strict_yaml.parse(text)
    except strict_yaml.PlainYamlError as error:
        return [f"override '{override}': the value is not valid YAML: {error}"]
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            return [f"override '{override}': '{parent}' holds a value, not keys"]
    data[last] = value
    return [f"override '{override}': {duplicate}" for duplicate in duplicates]
