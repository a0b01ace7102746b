"""Paired latency measurement of ONNX files. Needs ONNX Runtime and NumPy, nothing else.

Files take turns in rounds, in a random order each time, so that heat, clock changes and other processes hit all of
them alike. A turn begins with calls that are not timed: the file before has emptied the caches, and a network that
fits into them runs up to twice as slowly until they are full again. Then the turn's samples follow. A sample is the
time of one call; where calls are shorter than 0.2 ms, the mean of several in a row.

Rounds are gathered into passes, each with fresh sessions of all files: two sessions of the same file differ by some
percent for as long as they live, because of where their memory lies, and only more sessions can tell that from a
difference between the files.

The first file takes part a second time, as its own copy. The ratio of the two (A/A) is 1 in truth: how far its interval
reaches is what this measurement can tell on this machine now, and where that is too far, nothing is claimed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from exporters import statistics
from exporters.clock import WALL, clock_for
from exporters.cores import doubt as cores_doubt
from exporters.errors import ExportError
from exporters.memory import peak_bytes
from exporters.providers import PROVIDERS, find_provider
from exporters.runtime import environment
from exporters.statistics import Latency, Speedup
from exporters.turns import Runner, Schedule, take_turns

SAMPLE_SECONDS = 0.0002
"""Shortest time that is taken as a sample."""
PRECISION = 0.005
"""How far an interval may reach before a measurement goes on, as a share."""
RESOLUTION_MS, DRIFT, HALF_WIDTH = 0.05, 0.05, 0.03
"""Beyond these, a result carries a warning."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Latencies of files that were measured together, by name. All others are compared with the `reference`.

    Attributes:
        provider: A name in `providers.PROVIDERS`.
        threads: Threads inside one operator.
        batch: Batch size.
        samples: For every file, milliseconds per call by the clock, shape (passes, samples per pass).
        session_ms: For every file, milliseconds to open it (median over the passes).
        calls_per_sample: Number of calls that a sample is the mean of.
        min_samples: Number of samples that were asked for.
        seed: Seed of inputs, order and resampling.
        environment: The machine, as `runtime.environment` tells it.
        peak_bytes: For every file, by how much it raises the peak memory of a process; None where not measured.
        clock: `thread_cpu` or `wall`: what the samples are times of.
        wall: The same samples by the wall clock.
        copy: Samples of a copy of the reference, by the clock; None where there was none.

    Example:
        >>> result = exporters.benchmark(["dense.onnx", "compact.onnx"], min_seconds=0.1, memory=False)
        >>> list(result.models), list(result.speedups)
        (['dense', 'compact'], ['compact'])
        >>> result.save_samples("samples.json")
        >>> exporters.Benchmark.from_samples("samples.json").speedup == result.speedup
        True
    """

    provider: str
    threads: int
    batch: int
    samples: dict[str, np.ndarray]
    session_ms: dict[str, float]
    calls_per_sample: int
    min_samples: int
    seed: int
    environment: dict[str, Any]
    peak_bytes: dict[str, int | None] = field(default_factory=dict)
    clock: str = WALL
    wall: dict[str, np.ndarray] = field(default_factory=dict)
    copy: np.ndarray | None = None

    @property
    def reference(self) -> str:
        """The file that all others are compared with: the one that was named first."""
        return next(iter(self.samples))

    @cached_property
    def models(self) -> dict[str, Latency]:
        """Percentiles of every file."""
        return {
            name: statistics.latency(
                samples, self.session_ms[name], self.batch, self.peak_bytes.get(name), self.wall.get(name)
            )
            for name, samples in self.samples.items()
        }

    @cached_property
    def speedups(self) -> dict[str, Speedup]:
        """How many times as fast as the reference every other file is, never surer than A/A allows."""
        return {name: found.widened(self.aa) for name, found in self._ratios(self.samples).items()}

    @cached_property
    def wall_speedups(self) -> dict[str, Speedup]:
        """The same by the wall clock: what a user feels while the machine is as busy as it was."""
        return self._ratios(self.wall)

    @cached_property
    def aa(self) -> Speedup | None:
        """The reference against its own copy."""
        if self.copy is None:
            return None
        return statistics.speedup(self.samples[self.reference], self.copy, self.seed)

    @property
    def doubt(self) -> str | None:
        """Why the speed-ups say nothing, where A/A is too far from 1 or too wide."""
        return statistics.doubt(self.aa.low, self.aa.high) if self.aa else None

    def _ratios(self, samples: dict[str, np.ndarray]) -> dict[str, Speedup]:
        others = {name: own for name, own in samples.items() if name != self.reference}
        return {name: statistics.speedup(samples[self.reference], own, self.seed) for name, own in others.items()}

    def pooled(self, other: Benchmark) -> Benchmark:
        """Both measurements of the same files as one; passes have different lengths at times: the shorter counts."""
        ours, theirs = ({**b.samples, **({} if b.copy is None else {"": b.copy})} for b in (self, other))
        both = {name: _stacked(ours[name], theirs[name]) for name in ours}
        wall = {name: _stacked(self.wall[name], other.wall[name]) for name in self.wall}
        return replace(self, copy=both.pop("", None), samples=both, wall=wall)

    @property
    def speedup(self) -> Speedup | None:
        """The speed-up of the second file, if there is one."""
        return next(iter(self.speedups.values()), None)

    @cached_property
    def warnings(self) -> list[str]:
        """Reasons to doubt these numbers, in plain words."""
        found = [text for name in self.samples for text in self._doubts(name)]
        wide = [name for name, speedup in self.speedups.items() if speedup.half_width > HALF_WIDTH]
        found += [f"{name}: the interval of the speed-up is still wider than ±{HALF_WIDTH:.0%}" for name in wide]
        found += [self.doubt] if self.doubt else []
        load, cores = self.environment["load_average"], self.environment["cores"]
        if load is not None and load > cores:
            found.append(f"other processes were running: load average {load:.1f} on {cores} cores")
        if (cores := self.environment.get("usable_cores")) and (problem := cores_doubt(self.threads, cores)):
            found.append(problem)
        if self.calls_per_sample > 1:
            found.append(f"a sample is the mean of {self.calls_per_sample} calls: p90 and p99 are those of the means")
        return found

    def _doubts(self, name: str) -> Iterator[str]:
        samples, median = self.samples[name], self.models[name].p50_ms
        spread, drift = statistics.spread(samples), statistics.drift(samples)
        if self.provider in PROVIDERS and spread > PROVIDERS[self.provider].max_spread:
            yield f"{name}: latencies spread by {spread:.0%} around the median; is the machine busy?"
        if abs(drift) > DRIFT:
            yield f"{name}: the median drifted by {drift:+.0%} from the first to the last third"
        if median < RESOLUTION_MS:
            yield f"{name}: {median:.4f} ms a call is mostly the overhead of calling"
        if samples.size < self.min_samples:
            yield f"{name}: only {samples.size} samples, {self.min_samples} were asked for"

    def to_dict(self) -> dict[str, Any]:
        """The entry of `benchmarks` in `report.json`."""
        return {
            "provider": self.provider,
            "threads": self.threads,
            "batch": self.batch,
            "calls_per_sample": self.calls_per_sample,
            "models": {name: asdict(value) for name, value in self.models.items()},
            "speedup": asdict(self.speedup) if self.speedup else None,
            "speedups": {name: asdict(value) for name, value in self.speedups.items()},
            "clock": self.clock,
            "aa": asdict(self.aa) if self.aa else None,
            "wall_speedup": asdict(next(iter(self.wall_speedups.values()))) if self.wall_speedups else None,
            "warnings": self.warnings,
            "environment": self.environment,
        }

    def save_samples(self, path: str | Path) -> None:
        """Write all samples as JSON, from which `from_samples` makes the same results again."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        for key in ("samples", "wall"):
            content[key] = {name: samples.tolist() for name, samples in content[key].items()}
        content["copy"] = None if self.copy is None else self.copy.tolist()
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(content))
        os.replace(temporary, path)

    @classmethod
    def from_samples(cls, path: str | Path) -> Benchmark:
        """Read what `save_samples` wrote.

        Raises:
            ExportError: the file is not one of these.
        """
        try:
            content = json.loads(Path(path).read_text())
            content["samples"] = {name: _rows(rows) for name, rows in content["samples"].items()}
            content["wall"] = {name: _rows(rows) for name, rows in content.get("wall", {}).items()}
            content["copy"] = None if content.get("copy") is None else _rows(content["copy"])
            if not content["samples"]:
                raise ValueError("expected rows of milliseconds for every file")
            return cls(**content)
        except (OSError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise ExportError(
                f"not the samples of a benchmark ({error})", where=str(path), cure="measure again and save the samples"
            ) from error


def benchmark(
    paths: Sequence[str | Path] | Mapping[str, str | Path],
    *,
    provider: str = "cpu",
    threads: int = 1,
    batch: int = 1,
    min_seconds: float = 5.0,
    min_samples: int = 50,
    warmup_seconds: float = 0.5,
    warmup_samples: int = 10,
    seed: int = 0,
    memory: bool = True,
    single_calls: bool = False,
    control: bool = True,
    precision: float = PRECISION,
    progress: Callable[[float], None] | None = None,
) -> Benchmark:
    """Measure ONNX files against the first of them, the reference, on random inputs.

    The clock is the processor time of this thread where one thread does the work, else the wall clock.

    Args:
        paths: ONNX files by name; without names, each is called by the stem of its path.
        provider: A name in `providers.PROVIDERS`.
        threads: Threads inside one operator.
        batch: Batch size.
        min_seconds: Measure at least so long, all files together, after the warm-up ...
        min_samples: ... and until every file has so many samples, and every speed-up an interval that is narrow
            enough, or a cap is reached (and a warning given).
        warmup_seconds: Run every file at least so long before, ...
        warmup_samples: ... and at least so many times.
        seed: Seed of inputs, order and resampling.
        memory: Whether to measure peak memory as well, of each file in a process of its own.
        single_calls: Whether a sample is one call even where calls are short: percentiles are those of calls then.
        control: Whether a copy of the reference takes part, for the interval of A/A.
        precision: Measure up to twice as long, until every interval reaches no further than this, as a share.
        progress: Called after every pass with the share that is done, 0 to 1.

    Returns:
        The samples of all files in milliseconds per call, their percentiles, and the speed-ups over the first file.

    Raises:
        InvalidModelError: a file cannot be run.
        ProviderUnavailableError: the provider is not active.
        ExportError: there are no files, or one does not take such inputs.

    Example:
        >>> result = exporters.benchmark(["dense.onnx", "compact.onnx"], min_seconds=0.1, memory=False)
        >>> result.models["dense"].p50_ms > 0
        True
        >>> result.speedup.low <= result.speedup.median <= result.speedup.high
        True
    """
    named = dict(paths) if isinstance(paths, Mapping) else dict(zip(_names(paths), paths, strict=True))
    if not named:
        raise ExportError("there is nothing to measure", cure="name at least one ONNX file")
    machine, clock = environment(), clock_for(find_provider(provider), threads)
    runners = {name: Runner(path, provider, threads, batch, seed, clock) for name, path in named.items()}
    copies = [Runner(path, provider, threads, batch, seed, clock) for path in [*named.values()][:control]]
    turns = [*runners.values(), *copies]
    for runner in turns:
        runner.open()
        runner.warm_up(warmup_seconds, warmup_samples)
    calls = 1 if single_calls else max(1, math.ceil(SAMPLE_SECONDS / min(runner.seconds for runner in turns)))
    schedule = Schedule.of(turns, calls, min_seconds, min_samples, precision)
    machine["long_turns"] = take_turns(turns, schedule, warmup_samples, seed, progress)
    return Benchmark(
        provider=provider,
        threads=threads,
        batch=batch,
        samples={name: np.array(runner.passes) for name, runner in runners.items()},
        session_ms={name: float(np.median(runner.session_ms)) for name, runner in runners.items()},
        calls_per_sample=calls,
        min_samples=min_samples,
        seed=seed,
        environment=machine,
        peak_bytes={
            name: peak_bytes(runner.path, provider=provider, threads=threads, batch=batch)
            for name, runner in runners.items()
            if memory
        },
        clock=clock,
        wall={name: np.array(runner.wall) for name, runner in runners.items()},
        copy=np.array(copies[0].passes) if control else None,
    )


def _rows(value: Any) -> np.ndarray:
    """Milliseconds by pass and sample, as read from a file."""
    rows = np.asarray(value, float)
    if rows.ndim != 2 or not rows.size or not (rows > 0).all() or not np.isfinite(rows).all():
        raise ValueError("expected rows of milliseconds for every file")
    return rows


def _stacked(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Passes of two measurements below each other."""
    samples = min(one.shape[1], other.shape[1])
    return np.concatenate([one[:, :samples], other[:, :samples]])


def _names(paths: Sequence[str | Path]) -> list[str]:
    """The stem of every file, with a number behind it where that is taken."""
    names: list[str] = []
    for path in paths:
        stem = Path(path).stem
        numbered = (f"{stem}-{number}" for number in count(2))
        names.append(next(name for name in chain([stem], numbered) if name not in names))
    return names
