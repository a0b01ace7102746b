"""The schema of recipe.yaml, and reading and writing it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from compressor.errors import InputError
from compressor.recipe import strict_yaml
from compressor.recipe.faults import describe, explain
from compressor.support import plugins

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


def _form_of_method(method: str) -> str:
    return check_callable_name(method) if ":" in method else method


def _absolute(path: Path | str, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return Path(os.path.abspath(base / Path(path).expanduser())) if base else Path(path)


def _absolute_file(reference: str, info: ValidationInfo) -> str:
    target, _, name = reference.rpartition(":")
    return f"{_absolute(target, info)}:{name}" if target.endswith(".py") else reference


def _known_provider(name: object) -> object:
    from exporters.providers import PROVIDERS  # brings ONNX Runtime, which `compressor --help` need not wait for

    if name not in list(PROVIDERS):
        *others, last = map(repr, PROVIDERS)
        raise ValueError(f"expected {', '.join(others)} or {last}")
    return name


def _list_providers(schema: dict[str, Any]) -> None:
    from exporters.providers import PROVIDERS

    schema["enum"] = list(PROVIDERS)


def _not_empty(values: tuple[int, ...]) -> tuple[int, ...]:
    if not values:
        raise ValueError("expected at least one number")
    return values


CallableName = Annotated[str, AfterValidator(check_callable_name), AfterValidator(_absolute_file)]
SourceName = Annotated[str, AfterValidator(_form_of_source), AfterValidator(_absolute_file)]
MethodName = Annotated[str, AfterValidator(_form_of_method), AfterValidator(_absolute_file)]
RecipePath = Annotated[Path, Field(strict=False), AfterValidator(_absolute)]
ProviderName = Annotated[str, BeforeValidator(_known_provider), Field(json_schema_extra=_list_providers)]
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

    builder: CallableName = Field(
        description="What returns the network: `module:callable`, or `path/to/file.py:callable` relative to the recipe."
    )
    args: dict[str, Any] = Field({}, description="Keyword arguments of the builder, such as `{num_classes: 10}`.")
    checkpoint: RecipePath | None = Field(
        None,
        description="File with the weights: `.pt`, `.pth`, `.th`, `.ckpt` or `.safetensors`, relative to the recipe. "
        "The state dict is found inside, with or without common prefixes. `null` keeps the builder's own weights.",
    )
    allow_pickle: bool = Field(
        False,
        description="Also read checkpoints that hold a pickled module. Reading one runs code from the file: "
        "only for files you trust.",
    )
    input: PositiveInts = Field(
        description="Shape of one input without the batch, such as `[3, 224, 224]`: channels, height, width."
    )


class Normalize(Section):
    """Per-channel mean and standard deviation of inputs in 0..1."""

    mean: tuple[float, ...] = Field(description="Mean of each channel, with pixels scaled to 0..1, as in training.")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        description="Standard deviation of each channel; as many values as `mean`."
    )

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(f"expected as many values in mean as in std, got {len(self.mean)} and {len(self.std)}")
        return self


class DataSection(Section):
    """Where batches come from."""

    source: SourceName = Field(
        description="`imagefolder`, `torchvision:<Dataset>`, `digits`, or a callable of yours that returns loaders: "
        "`module:callable` or `path/to/file.py:callable`."
    )
    root: RecipePath | None = Field(
        None,
        description="Folder of the dataset, relative to the recipe. `imagefolder` reads `root/train/<class>` and "
        "`root/val/<class>`.",
    )
    args: dict[str, Any] = Field({}, description="Keyword arguments of the torchvision dataset or of your callable.")
    normalize: Normalize | None = Field(
        None, description="Normalisation of the images; `null` leaves pixels in 0..1. Not applied to a callable's data."
    )
    batch_size: int = Field(
        128, ge=1, description="Images per batch, over all processes together, in training and evaluation."
    )
    workers: int = Field(
        0, ge=0, le=1024, description="Processes that read images ahead; 0 reads them in the process of the run."
    )
    augment: bool = Field(
        True,
        description="Augment training images: random crops or shifts, and mirroring; digits are only shifted. "
        "Calibration and evaluation images are never augmented.",
    )


class TargetSection(Section):
    """Exactly one target, by the name of its kind."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [f"{name}: {value}" for name, value in self if value is not None]
        if len(given) != 1:
            got = ", ".join(given) or "none"
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}; got {got}")
        return self

    @property
    def asked(self) -> dict[str, float]:
        """The kind of the target, and its value."""
        return {name: value for name, value in self if value is not None}


if TYPE_CHECKING:
    Target = TargetSection
else:
    _KINDS = plugins.discover("compressor.budget.targets", import_module("compressor.budget.targets.base").Target)
    Target = create_model(
        "Target",
        __base__=TargetSection,
        __doc__=TargetSection.__doc__,
        **{
            name: (float | None, Field(None, gt=kind.above, le=kind.most, description=kind.summary))
            for name, kind in _KINDS.items()
        },
    )


class CalibrationSection(Section):
    """How many training images the selection looks at."""

    images: int = Field(
        1024,
        ge=1,
        description="Training images that rank the units and refit the weights; more of them take longer. "
        "All are used where there are fewer.",
    )


class CompressSection(Section):
    """How units are chosen, and how many."""

    method: MethodName = Field(
        "imitation",
        description="Selection method or learned gate: a name from `compressor methods`, or a class of yours: "
        "`module:Class` or `path/to/file.py:Class`.",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Epochs in which learned gates train; `null` stands for 2. Only for methods that are gates.",
    )
    options: dict[str, Any] = Field(
        {}, description="Options of the method; `compressor methods` lists them with their defaults."
    )
    target: Target = Field(description="The budget: exactly one of the keys below.")
    calibration: CalibrationSection = Field(CalibrationSection(), description="What the selection looks at.")
    keep: tuple[str, ...] = Field(
        (),
        description="Layers that stay as they are, with everything they contain: names or patterns such as "
        '`["fc", "layer4.*"]`.',
    )
    inexact: bool = Field(
        False,
        description="Also cut channels that a layer norm reads, such as the embedding of a transformer. This changes "
        "the remaining ones, so it needs fine-tuning.",
    )
    refit: bool = Field(
        True, description="Re-solve the weights that read the remaining units by least squares, before fine-tuning."
    )
    refit_mixing: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Fraction of the dense network's outputs in what the refit imitates. Below 1, the rest is what the "
        "dense layer makes of its already pruned inputs, so errors of earlier layers are corrected less.",
    )
    multiple_of: int | None = Field(
        None,
        ge=1,
        description="Kept widths are multiples of this. `null` takes what the latency table found for the device, "
        "or 4 without a table.",
    )


class FinetuneSection(Section):
    """Training after the cut; without `lr`, its rate follows from the number of steps."""

    epochs: int = Field(
        10, ge=0, le=1_000_000, description="Passes over the training images; 0 keeps the weights of the refit."
    )
    lr: float | None = Field(
        None,
        gt=0,
        description="Highest learning rate. `null` takes up to 0.02, less for short trainings and small batches.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum of SGD.")
    weight_decay: float = Field(
        5e-4, ge=0, description="L2 weight decay; applies to weights of two or more axes, not to norms and biases."
    )
    warmup: float = Field(
        0.05, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises to its highest value."
    )
    schedule: str = Field(
        "llr",
        description="Course of the learning rate after warm-up: `llr` (a straight line to zero), `cosine`, `constant`, "
        "`allr`, `lr_rewind` or `silo`.",
    )
    original_epochs: int = Field(
        100, ge=1, description="Epochs of the training that made the checkpoint; only `allr` and `lr_rewind` use it."
    )
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="End with the mean of the weights over this last fraction of the steps; 0 keeps the last weights.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of the cross-entropy; 0 is none.")
    distill: bool = Field(True, description="Also learn from the outputs of the dense network.")
    temperature: float = Field(
        4.0, gt=0, description="Divides the logits of both networks in distillation; higher values soften them."
    )
    distill_weight: float = Field(
        0.9, ge=0, le=1, description="Fraction of the distillation loss in the loss; the rest is the cross-entropy."
    )
    distill_features: float = Field(
        0.0,
        ge=0,
        description="Weight of a further loss on the attention maps of both networks' stages; 0 switches it off.",
    )
    revive: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Raise the bias of units that are active at less than this fraction of the positions before "
        "training; 0 raises none.",
    )
    accumulate: int = Field(1, ge=1, description="Batches whose gradients are added up for one step.")
    clip: float | None = Field(None, gt=0, description="Largest norm of the gradient; `null` does not clip.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Precision of training, through Accelerate.")
    channels_last: bool = Field(False, description="Train in channels-last memory format; often faster on GPUs.")
    compile: bool = Field(False, description="Train through `torch.compile`.")

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return FULL_RATE if self.lr is None else self.lr


class ExportSection(Section):
    """How the ONNX files are written."""

    opset: int = Field(20, ge=17, description="Version of the ONNX operator set.")
    dynamic_batch: bool = Field(
        True,
        description="The files take any batch size; `false` fixes it to the first of `benchmark.batch_sizes`.",
    )


class BenchmarkSection(Section):
    """How latency is measured."""

    provider: ProviderName = Field("cpu", description="Execution provider of ONNX Runtime.")
    threads: int = Field(1, ge=1, description="Threads inside one operator; operators run one after another.")
    batch_sizes: PositiveInts = Field(
        (1,), description="Batch sizes to measure; targets and rules look at the first one."
    )
    seconds: float = Field(5.0, gt=0, description="Least measuring time for each batch size, in seconds.")
    table: RecipePath | None = Field(
        None,
        description="Latency table of the device to compress for, written by `compressor profile` or its kit; `null` "
        "measures this device where a target needs a table.",
    )


class BaselineSection(Section):
    """How much worse than an earlier accepted report a run may be; None judges nothing."""

    accuracy_drop: float | None = Field(
        0.005, ge=0, le=1, description="Largest loss of top-1 since the baseline, absolute: 0.005 is half a point."
    )
    slowdown: float | None = Field(
        0.05, ge=0, description="Largest relative rise of the median latency since the baseline: 0.05 is 5 %."
    )


class AcceptSection(Section):
    """What must hold for the run to be accepted; None asks for nothing."""

    accuracy_drop: float | None = Field(
        0.02, ge=0, le=1, description="Largest loss of top-1 against the dense network, absolute: 0.02 is two points."
    )
    speedup: float | None = Field(
        1.0, gt=0, description="Least speed-up: the lower end of its measured 95 % interval must reach it."
    )
    parity: float | None = Field(
        1e-4,
        gt=0,
        description="Largest difference between the ONNX file and PyTorch, relative to the largest output.",
    )
    params: int | None = Field(None, ge=1, description="Most parameters of the compact network.")
    size_mb: float | None = Field(None, gt=0, description="Largest compact ONNX file, in megabytes (10^6 bytes).")
    p99_ms: float | None = Field(
        None,
        gt=0,
        description="Largest 99th percentile of the latency by the wall clock, in milliseconds, at the first batch "
        "size; single calls are measured then.",
    )
    peak_mb: float | None = Field(
        None, gt=0, description="Largest peak memory of the compact file, in megabytes, where it can be measured."
    )
    baseline: BaselineSection = Field(
        BaselineSection(), description="Rules against an earlier report, judged only with `--baseline REPORT`."
    )


class Recipe(Section):
    """Everything that a run depends on.

    Example:
        >>> recipe = compressor.Recipe.model_validate(
        ...     {
        ...         "model": {"builder": "compressor.models.digits:digits_resnet", "input": [1, 32, 32]},
        ...         "data": {"source": "digits"},
        ...         "compress": {"target": {"macs": 0.5}},
        ...     }
        ... )
        >>> recipe.compress.target.macs, recipe.finetune.epochs
        (0.5, 10)
    """

    task: str = Field("classification", description="What the network is for.")
    model: ModelSection = Field(description="Which architecture, and which weights.")
    data: DataSection = Field(description="Where images and labels come from.")
    compress: CompressSection = Field(description="How units are chosen, and how many.")
    finetune: FinetuneSection = Field(FinetuneSection(), description="Training after the cut.")
    export: ExportSection = Field(ExportSection(), description="How the ONNX files are written.")
    benchmark: BenchmarkSection = Field(BenchmarkSection(), description="How latency is measured.")
    accept: AcceptSection = Field(
        AcceptSection(), description="Rules that must hold for the run to be accepted; `null` switches a rule off."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of every random choice; the same seed gives the same plan.")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; relative paths in it are relative to its directory.

    Args:
        path: The YAML file.
        overrides: Changes of single keys, each `key.path=value` with the value in YAML.

    Returns:
        The recipe with every default filled in and every path absolute.

    Raises:
        InputError: naming every fault of the recipe and of the overrides at once.

    Example:
        >>> compressor.load_recipe("recipe.yaml", ["finetune.epochs=3"]).finetune.epochs
        3
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
