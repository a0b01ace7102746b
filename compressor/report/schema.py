"""What a run found: the schema of report.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field, model_validator

from compressor.budget.search.speed import Speed
from compressor.errors import InputError
from compressor.gates.history import GateEpoch
from compressor.support.ranges import Count, Milliseconds, Number, Share
from compressor.training.history import Activity, Epoch

SCHEMA_VERSION = 1
DENSE, COMPACT = "dense", "compact"
"""Names of variants, the files of a run; `dense` is what all others are compared with."""
FP32 = "fp32"


class Part(BaseModel):
    """A part of a report: keys of a newer version are skipped, infinite numbers survive as strings."""

    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="strings", populate_by_name=True)


class Network(Part):
    """One state of the network.

    Attributes:
        params: Number of parameters.
        macs: Multiply-adds of one input.
        accuracy: Top-1 on the validation set, 0 to 1; None without labels.
        metrics: What the task measures on the validation set, by name, the main metric first; empty without labels.
        agreement: How far it agrees with the dense network, 0 to 1, as the task sees it; only without labels.
        onnx_bytes: Size of its ONNX file, where there is one.
    """

    params: Number
    macs: Number
    accuracy: Share | None = None
    metrics: dict[str, float] = {}
    agreement: Share | None = None
    onnx_bytes: Number | None = None


class Quality(Part):
    """How the quality of a network is read.

    Attributes:
        metric: The name of the main metric.
        label: What it is, in a sentence.
        higher_is_better: Whether larger values of it are better.
        percent: Whether it is a share, shown in per cent.
        divergence: What the divergence of two networks is, in a sentence.
        agreement: What their agreement is, in a sentence.
    """

    metric: str = "accuracy"
    label: str = "top-1"
    higher_is_better: bool = True
    percent: bool = True
    divergence: str = "KL divergence"
    agreement: str = "same top-1 as dense"


class File(Part):
    """One variant: an ONNX file of the run.

    Attributes:
        network: Which network of the report it computes: `dense` or `compact`.
        bytes: Size, with the weights beside it where it is too large for one file; None where that is not known.
        precision: Of its weights and products.
    """

    network: Literal["dense", "compact"]
    bytes: Number | None = None
    precision: str = FP32


class Group(Part):
    """A channel group: pruned to `kept` of `size` units, or left alone for a `reason`; `inexact` where norms mix it."""

    name: str
    layers: list[str]
    size: Number | None = None
    kept: Count | None = None
    reason: str | None = None
    inexact: bool = False


class Parity(Part):
    """Largest difference between the ONNX file and the module, absolute and relative to the largest output."""

    max_abs: float
    max_rel: float


class Latency(Part):
    """Latency of one call of one model, in milliseconds, over `samples` measurements; and its peak memory if known.

    The first three are times by the clock of the benchmark, the last ones by the wall clock.
    """

    p50_ms: Milliseconds
    p90_ms: Milliseconds
    p99_ms: Milliseconds
    samples: Count
    peak_bytes: Count | None = None
    wall_p50_ms: Milliseconds | None = None
    wall_p99_ms: Milliseconds | None = None


class Speedup(Part):
    """Ratio of latencies, that of the dense file by that of another one, with its 95 % interval."""

    median: float
    low: float
    high: float


class Benchmark(Part):
    """A paired measurement of all files of a run.

    Attributes:
        provider, threads, batch: How they were run.
        models: Latency of every variant.
        delivered: The variant that `speedup` and `wall_speedup` are about.
        speedup: How many times as fast as the dense file the delivered one is.
        speedups: The same of every variant but the dense one.
        calls_per_sample: Number of calls that a sample is the mean of.
        warnings: Reasons to doubt these numbers.
        clock: `thread_cpu` or `wall`.
        aa: The dense file against its own copy.
        wall_speedup: What a user felt while the machine was as busy as it was.
    """

    provider: str
    threads: Count
    batch: Count
    models: dict[str, Latency] = Field(min_length=2)
    delivered: str = COMPACT
    speedup: Speedup
    speedups: dict[str, Speedup] = {}
    calls_per_sample: Number = 1
    warnings: list[str] = []
    clock: str = "wall"
    aa: Speedup | None = None
    wall_speedup: Speedup | None = None

    @model_validator(mode="after")
    def _name_variants(self) -> Self:
        """Refuse latencies without those that count; reports of 0.1.0 have no `speedups`."""
        if missing := {DENSE, self.delivered} - self.models.keys():
            raise ValueError(f"there is no latency of {', '.join(sorted(missing))}")
        self.speedups = self.speedups or {self.delivered: self.speedup}
        return self

    @property
    def dense(self) -> Latency:
        """That of the dense file."""
        return self.models[DENSE]

    @property
    def after(self) -> Latency:
        """That of the delivered file."""
        return self.models[self.delivered]

    @property
    def setting(self) -> str:
        """How it was run, in words: `cpu, 1 thread, batch 1`."""
        return f"{self.provider}, {self.threads} thread{'' if self.threads == 1 else 's'}, batch {self.batch}"


class Rule(Part):
    """One rule of acceptance, and how it was judged.

    Attributes:
        name: The key of the rule in the recipe's `accept` (such as `baseline.slowdown`), or `target`.
        required: The bound.
        measured: What is compared with the bound; None when it could not be measured.
        passed: Whether the rule holds.
        text: What the two numbers mean, or why the rule could not be judged.
    """

    name: str
    required: float
    measured: float | None
    passed: bool
    text: str


class Score(Part):
    """How good a network is on the held-out images: the main metric by its name, and the mean loss."""

    accuracy: Share | None = None
    metrics: dict[str, float] = {}
    loss: float


class Scores(Part):
    """Scores of the weights before training and after every epoch."""

    before: Score
    epochs: list[Score] = Field(min_length=1)


class Finetune(Part):
    """What fine-tuning delivers.

    Attributes:
        delivered: `before` where it did not help, or the epoch that was best: `epoch 2`.
        held_out: What was found on held-out training images.
        images: Their number.
        problem: Why training learns from these images all the same; None where it does not.
    """

    delivered: str
    held_out: Scores
    images: Number
    problem: str | None = None

    @property
    def after(self) -> Score:
        """The score of the epoch that is delivered; of the last one where none is."""
        named = {f"epoch {number}": score for number, score in enumerate(self.held_out.epochs, start=1)}
        return named.get(self.delivered, self.held_out.epochs[-1])


class BatchChoice(Part):
    """Whether the file takes any batch size, and how fast the other kind of file would be compared with it."""

    dynamic: bool
    other: Speedup


class Report(Part):
    """Everything that one run found.

    Attributes:
        environment: The machine that measured.
        versions: Of the packages that took part.
        recipe: The recipe with every default.
        dense: The network before.
        pruned: The network after the cut (and refit), before fine-tuning.
        compact: The network that was exported.
        files: The ONNX files, by the name of the variant.
        groups: Every channel group and everything that was left alone.
        parity: The compact file against the compact module.
        benchmarks: One per batch size.
        accept: The rules and their verdicts.
        seconds: Time of every stage, in seconds.
        history: The training curve.
        finetune: Which of its weights fine-tuning delivers, and why.
        gates: How learned gates moved.
        activity: Dead units by layer, where fine-tuning revives them.
        speed: The search for widths that meet a target on measured time.
        batch: Dynamic batch or not, and what that costs.
        rise: What the widths cost before fine-tuning, where the target is a loss.
        warnings: What a reader should know before trusting the numbers.
        task: What the network is for.
        quality: How its quality is read.

    Example:
        >>> report = compressor.Report.load(Path("report.json"))
        >>> report.accepted, report.speedup
        (True, 1.75)
        >>> [(rule.name, rule.passed) for rule in report.accept][:2]
        [('target', True), ('accuracy_drop', True)]
    """

    schema_version: int = Field(SCHEMA_VERSION, alias="schema")
    environment: dict[str, Any]
    versions: dict[str, str]
    recipe: dict[str, Any]
    dense: Network
    pruned: Network
    compact: Network
    files: dict[str, File] = {}
    groups: list[Group]
    parity: Parity
    benchmarks: list[Benchmark] = Field(min_length=1)
    accept: list[Rule] = []
    seconds: dict[str, float] = {}
    history: list[Epoch] = []
    finetune: Finetune | None = None
    gates: list[GateEpoch] = []
    activity: list[Activity] = []
    speed: Speed | None = None
    batch: BatchChoice | None = None
    rise: float | None = None
    warnings: list[str] = []
    task: str = "classification"
    quality: Quality = Quality()

    @model_validator(mode="after")
    def _name_files(self) -> Self:
        """Refuse files without those that count; reports of 0.1.0 have no `files`."""
        if not self.files:
            networks: list[tuple[Literal["dense", "compact"], Network]] = [
                ("dense", self.dense),
                ("compact", self.compact),
            ]
            self.files = {name: File(network=name, bytes=network.onnx_bytes) for name, network in networks}
        if missing := {DENSE, *(benchmark.delivered for benchmark in self.benchmarks)} - self.files.keys():
            raise ValueError(f"there is no file {', '.join(sorted(missing))}")
        return self

    @property
    def delivered(self) -> str:
        """The variant that the run is about."""
        return self.benchmarks[0].delivered

    def network(self, variant: str) -> Network:
        """Return the network that a file computes."""
        return self.dense if self.files[variant].network == "dense" else self.compact

    @computed_field  # type: ignore[prop-decorator]
    @property
    def accepted(self) -> bool:
        """Whether every rule holds; a report without rules is not accepted."""
        return bool(self.accept) and all(rule.passed for rule in self.accept)

    @property
    def builder(self) -> str:
        """What built the network, as its recipe says."""
        return str(self._section("model").get("builder", ""))

    @property
    def target(self) -> dict[str, Any]:
        """What the recipe asked for."""
        target = self._section("compress").get("target")
        return target if isinstance(target, dict) else {}

    def _section(self, name: str) -> dict[str, Any]:
        section = self.recipe.get(name)
        return section if isinstance(section, dict) else {}

    def main(self, state: Network) -> float | None:
        """The main metric of a state of the network; None without labels."""
        return state.metrics.get(self.quality.metric, state.accuracy)

    @property
    def speedup(self) -> float:
        """Median speed-up of the delivered file at the first batch size."""
        return self.benchmarks[0].speedup.median

    @property
    def pruned_groups(self) -> list[Group]:
        """The groups that could be cut."""
        return [group for group in self.groups if group.size is not None and group.kept is not None]

    @property
    def untouched_groups(self) -> list[Group]:
        """What was left alone."""
        return [group for group in self.groups if group.reason is not None]

    def to_json(self) -> str:
        """Return the text of report.json."""
        return self.model_dump_json(indent=2, by_alias=True)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read a report.json.

        Raises:
            InputError: it is missing, not a report, or of a newer schema.
        """
        cure = "give the directory of a finished run, or run `compressor run` again"
        try:
            report = cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError("there is no readable report", where=str(path), cure=cure) from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InputError(f"not a report: {field}: {first['msg']}", where=str(path), cure=cure) from error
        if report.schema_version > SCHEMA_VERSION:
            problem = f"schema {report.schema_version} is newer than this version reads ({SCHEMA_VERSION})"
            raise InputError(problem, where=str(path), cure="update compressor")
        return report


class Reach(Part):
    """A channel group before anything is cut.

    Attributes:
        name: Of the group.
        layers: That it touches.
        size: Number of units.
        step: Kept widths must be multiples of this.
        params: Share of the network's parameters that disappears when only the narrowest width is kept.
        macs: The same share of the multiply-adds.
        ms: Milliseconds that it saves; None without a latency table.
        useful: Widths below the full one that are faster than every wider one.
        inexact: Whether cutting it changes what is left, because a layer norm reads it.
    """

    name: str
    layers: list[str]
    size: int
    step: int
    params: float
    macs: float
    ms: float | None = None
    useful: list[int] = []
    inexact: bool = False


class Inspection(Part):
    """What could be cut in a network, and what could not.

    Attributes:
        params: Number of parameters.
        macs: Multiply-adds of one input.
        groups: Everything that can be cut.
        untouched: What is left alone, and why.
        smallest: For each kind of target, the smallest share that can be reached.
        layers_ms: Milliseconds of every layer with what follows it, where there is a table, in the order of the data.
        fastest: The largest speed-up that a table predicts.
    """

    params: int
    macs: int
    groups: list[Reach]
    untouched: list[Group]
    smallest: dict[str, float]
    layers_ms: dict[str, float] = {}
    fastest: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return self.model_dump(mode="json")
