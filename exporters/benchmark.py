"""Paired latency measurement of ONNX files. Needs ONNX Runtime and NumPy, nothing else.

Files take turns in rounds, in a random order each time, so that heat, clock changes and other processes hit all of
them alike. A turn begins with calls that are not timed: the file before has emptied the caches, and a network that
fits into them runs up to twice as slowly until they are full again. Then the turn's samples follow. A sample is the
time of one call; where calls are shorter than 0.2 ms, the mean of several in a row.

Rounds are gathered into passes, each with fresh sessions of all files: two sessions of the same file differ by some
percent for as long as they live, because of where their memory lies, and only more sessions can tell that from a
difference between the files.
"""

from __future__ import annotations

import gc
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, partial
from itertools import chain, count
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort

from exporters import statistics
from exporters.errors import CURE, ExportError, InvalidModelError
from exporters.memory import peak_bytes
from exporters.runtime import create_session, environment, random_inputs, reason
from exporters.statistics import Latency, Speedup

SAMPLE_SECONDS = 0.0002
"""Shortest time that is taken as a sample."""
TURN_SECONDS = 0.005
"""Least time of the timed calls in a turn, and of those before them: enough to pass a processor's last cache once."""
FEWEST_PASSES, MOST_PASSES = 5, 20
"""Bounds on the number of passes; between them, opening files takes no longer than measuring."""
HALF_WIDTH = 0.03
"""Passes go on, up to twice as many, until the interval of every speed-up reaches no further than this, as a share."""
CAP_SECONDS = 60.0
"""A measurement ends after this time, or four times the time asked for, with fewer samples than asked for."""
RESOLUTION_MS, SPREAD, DRIFT = 0.05, 0.10, 0.05
"""Beyond these, a result carries a warning."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Latencies of files that were measured together. The first one is the reference.

    Attributes:
        provider: `cpu` or `cuda`.
        threads: Threads inside one operator.
        batch: Batch size.
        samples: For every file, milliseconds per call, shape (passes, samples per pass).
        session_ms: For every file, milliseconds to open it (median over the passes).
        calls_per_sample: Number of calls that a sample is the mean of.
        min_samples: Number of samples that were asked for.
        seed: Seed of inputs, order and resampling.
        environment: The machine, as `runtime.environment` tells it.
        peak_bytes: For every file, by how much it raises the peak memory of a process; None where not measured.
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

    @cached_property
    def models(self) -> dict[str, Latency]:
        """Percentiles of every file."""
        return {
            name: statistics.latency(samples, self.session_ms[name], self.batch, self.peak_bytes.get(name))
            for name, samples in self.samples.items()
        }

    @cached_property
    def speedups(self) -> dict[str, Speedup]:
        """How many times as fast as the first file every other one is."""
        (_, reference), *others = self.samples.items()
        return {name: statistics.speedup(reference, samples, self.seed) for name, samples in others}

    @property
    def speedup(self) -> Speedup | None:
        """The speed-up of the second file, if there is one."""
        return next(iter(self.speedups.values()), None)

    @cached_property
    def warnings(self) -> list[str]:
        """Reasons to doubt these numbers, in plain words."""
        found = [text for name in self.samples for text in self._doubts(name)]
        wide = [name for name, speedup in self.speedups.items() if _half_width(speedup) > HALF_WIDTH]
        found += [f"{name}: the interval of the speed-up is still wider than ±{HALF_WIDTH:.0%}" for name in wide]
        load, cores = self.environment["load_average"], self.environment["cores"]
        if load is not None and load > cores:
            found.append(f"other processes were running: load average {load:.1f} on {cores} cores")
        if self.calls_per_sample > 1:
            found.append(f"a sample is the mean of {self.calls_per_sample} calls: p90 and p99 are those of the means")
        return found

    def _doubts(self, name: str) -> Iterator[str]:
        samples, median = self.samples[name], self.models[name].p50_ms
        spread, drift = statistics.spread(samples), statistics.drift(samples)
        if self.provider == "cpu" and spread > SPREAD:
            yield f"{name}: latencies spread by {spread:.0%} around the median; is the machine busy?"
        if abs(drift) > DRIFT:
            yield f"{name}: the median drifted by {drift:+.0%} from the first to the last third"
        if median < RESOLUTION_MS:
            yield f"{name}: {median:.4f} ms a call is mostly the overhead of calling"
        if samples.size < self.min_samples:
            yield f"{name}: only {samples.size} samples, {self.min_samples} were asked for"

    def to_dict(self) -> dict[str, Any]:
        """The entry of `benchmarks` in `report.json`."""
        speedups = {name: asdict(value) for name, value in self.speedups.items()}
        return {
            "provider": self.provider,
            "threads": self.threads,
            "batch": self.batch,
            "calls_per_sample": self.calls_per_sample,
            "models": {name: asdict(value) for name, value in self.models.items()},
            "speedup": asdict(self.speedup) if self.speedup else None,
            **({"speedups": speedups} if len(speedups) > 1 else {}),
            "warnings": self.warnings,
            "environment": self.environment,
        }

    def save_samples(self, path: str | Path) -> None:
        """Write all samples as JSON, from which `from_samples` makes the same results again."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["samples"] = {name: samples.tolist() for name, samples in self.samples.items()}
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
            content["samples"] = {name: np.asarray(rows, float) for name, rows in content["samples"].items()}
            samples = content["samples"].values()
            if not samples or not all(
                r.ndim == 2 and r.size and (r > 0).all() and np.isfinite(r).all() for r in samples
            ):
                raise ValueError("expected rows of milliseconds for every file")
            return cls(**content)
        except (OSError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise ExportError(
                f"not the samples of a benchmark ({error})", where=str(path), cure="measure again and save the samples"
            ) from error


def benchmark(
    paths: Sequence[str | Path],
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
    progress: Callable[[float], None] | None = None,
) -> Benchmark:
    """Measure ONNX files against the first of them, on random inputs.

    Args:
        paths: ONNX files; the first is the reference.
        provider: `cpu` or `cuda`.
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
        progress: Called after every pass with the share that is done, 0 to 1.

    Raises:
        InvalidModelError: a file cannot be run.
        ProviderUnavailableError: the provider is not active.
        ExportError: there are no files, or one does not take such inputs.
    """
    if not paths:
        raise ExportError("there is nothing to measure", cure="name at least one ONNX file")
    machine = environment()
    files = [_File(path, provider, threads, batch, seed) for path in paths]
    for file in files:
        file.open()
        file.warm_up(warmup_seconds, warmup_samples)
    calls_per_sample = 1 if single_calls else max(1, math.ceil(SAMPLE_SECONDS / min(file.seconds for file in files)))
    schedule = _Schedule.of(files, calls_per_sample, min_seconds, min_samples)
    _measure(files, schedule, warmup_samples, seed, progress)
    names = _names(paths)
    return Benchmark(
        provider=provider,
        threads=threads,
        batch=batch,
        samples={name: np.array(file.passes) for name, file in zip(names, files, strict=True)},
        session_ms={name: float(np.median(file.session_ms)) for name, file in zip(names, files, strict=True)},
        calls_per_sample=calls_per_sample,
        min_samples=min_samples,
        seed=seed,
        environment=machine,
        peak_bytes={
            name: peak_bytes(path, provider=provider, threads=threads, batch=batch)
            for name, path in zip(names, paths, strict=True)
            if memory
        },
    )


class _File:
    """One file: how it is opened, how it takes its turn, and what it has shown so far."""

    def __init__(self, path: str | Path, provider: str, threads: int, batch: int, seed: int) -> None:
        self.path, self.provider, self.threads, self.batch, self.seed = path, provider, threads, batch, seed
        self.session_ms: list[float] = []
        self.passes: list[list[float]] = []
        self.seconds = 0.0

    def open(self) -> None:
        """Create a fresh session and run it once."""
        start = perf_counter()
        session = create_session(self.path, provider=self.provider, threads=self.threads)
        self.session_ms.append((perf_counter() - start) * 1e3)
        self.call = _caller(session, self.batch, self.seed, self.provider, self.path)

    def warm_up(self, seconds: float, samples: int) -> None:
        """Run until both are reached; the median of the later half is taken as the time of a call."""
        times: list[float] = []
        start = perf_counter()
        while len(times) < max(2, samples) or perf_counter() - start < seconds:
            times.append(_time(self.call, 1))
        self.seconds = float(np.median(times[len(times) // 2 :]))

    def turn(self, settling_calls: int, samples: int, calls_per_sample: int) -> list[float]:
        """Fill the caches; then return the milliseconds per call of every sample."""
        for _ in range(settling_calls):
            self.call()
        return [_time(self.call, calls_per_sample) * 1e3 for _ in range(samples)]


@dataclass(frozen=True)
class _Schedule:
    """How the time is divided; the same in every pass, so that passes can be compared.

    Attributes:
        turns: For every file, the arguments of its turn.
        rounds: Rounds in a pass.
        passes: Passes, at least.
        seconds: Time in turns, at least.
        cap: Time in all, at most (a pass that has begun is finished).
    """

    turns: list[tuple[int, int, int]]
    rounds: int
    passes: int
    seconds: float
    cap: float

    @classmethod
    def of(cls, files: Sequence[_File], calls_per_sample: int, min_seconds: float, min_samples: int) -> _Schedule:
        """Divide the time by what the warm-up has shown."""
        opening = sum(file.session_ms[-1] for file in files) / 1e3
        passes = min(MOST_PASSES, max(FEWEST_PASSES, int(min_seconds / opening)))
        turns = [_turn(file.seconds, calls_per_sample) for file in files]
        round_seconds = sum(
            file.seconds * (settling + samples * calls)
            for file, (settling, samples, calls) in zip(files, turns, strict=True)
        )
        by_time = min_seconds / passes / round_seconds
        by_samples = min_samples / passes / min(samples for _, samples, _ in turns)
        rounds = max(1, math.ceil(by_time), math.ceil(by_samples))
        return cls(turns, rounds, passes, min_seconds, max(CAP_SECONDS, 4 * min_seconds))


def _turn(seconds: float, calls_per_sample: int) -> tuple[int, int, int]:
    """Settling calls, samples, and calls per sample of a file whose calls take so long."""
    settling = max(1, math.ceil(TURN_SECONDS / seconds))
    return settling, max(1, math.ceil(TURN_SECONDS / (seconds * calls_per_sample))), calls_per_sample


def _measure(
    files: Sequence[_File],
    schedule: _Schedule,
    warmup_samples: int,
    seed: int,
    progress: Callable[[float], None] | None,
) -> None:
    rng = np.random.default_rng(seed)
    begin, measured = perf_counter(), 0.0
    while len(files[0].passes) < schedule.passes or measured < schedule.seconds or _is_open(files, seed):
        if len(files[0].passes) >= 2 and perf_counter() - begin > schedule.cap:
            break
        for file in files:
            file.open()
            file.warm_up(0.0, warmup_samples)
            file.passes.append([])
        start = perf_counter()
        with _no_collection():
            for _ in range(schedule.rounds):
                for index in rng.permutation(len(files)):
                    files[index].passes[-1] += files[index].turn(*schedule.turns[index])
        measured += perf_counter() - start
        if progress:
            progress(min(1.0, len(files[0].passes) / schedule.passes, measured / max(schedule.seconds, 1e-9)))


def _is_open(files: Sequence[_File], seed: int) -> bool:
    """Whether more passes could make an interval narrow enough."""
    reference, *others = (np.array(file.passes) for file in files)
    if len(reference) >= 2 * MOST_PASSES:
        return False
    return any(_half_width(statistics.speedup(reference, other, seed)) > HALF_WIDTH for other in others)


def _half_width(speedup: Speedup) -> float:
    return (speedup.high - speedup.low) / (2 * speedup.median)


def _caller(
    session: ort.InferenceSession, batch: int, seed: int, provider: str, path: str | Path
) -> Callable[[], object]:
    """A function that runs the file once, from inputs in the device's memory to outputs in the device's memory."""
    feed = random_inputs(session, batch, seed)
    run = partial(session.run, None, feed) if provider == "cpu" else _bound(session, feed, provider)
    try:
        run()
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        raise InvalidModelError(f"ONNX Runtime cannot run it ({reason(error)})", where=str(path), cure=CURE) from error
    return run


def _bound(session: ort.InferenceSession, feed: dict[str, np.ndarray], device: str) -> Callable[[], object]:
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
    for node in session.get_outputs():
        binding.bind_output(node.name, device)
    binding.synchronize_inputs()

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _time(call: Callable[[], object], calls: int) -> float:
    """Seconds per call, as the mean of that many in a row."""
    start = perf_counter()
    for _ in range(calls):
        call()
    return (perf_counter() - start) / calls


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the samples."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _names(paths: Sequence[str | Path]) -> list[str]:
    """The stem of every file, with a number behind it where that is taken."""
    names: list[str] = []
    for path in paths:
        stem = Path(path).stem
        numbered = (f"{stem}-{number}" for number in count(2))
        names.append(next(name for name in chain([stem], numbered) if name not in names))
    return names
