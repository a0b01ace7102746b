"""Paired latency measurement of ONNX files. Needs ONNX Runtime and NumPy, nothing else.

Files take turns in rounds, in a random order each time, so that heat, clock changes and other processes hit all of
them alike. A turn begins with calls that are not timed: the file before has emptied the caches, and a network that
fits into them runs up to twice as slowly until they are full again. Then the turn's samples follow. A sample is the
time of one call; where calls are shorter than 0.2 ms, the mean of several in a row.
"""

from __future__ import annotations

import gc
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from itertools import chain, count
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort

from exporters import statistics
from exporters.errors import CURE, ExportError, InvalidModelError
from exporters.runtime import create_session, environment, random_inputs, reason
from exporters.statistics import Latency, Speedup

SAMPLE_SECONDS = 0.0002
"""Shortest time that is taken as a sample."""
TURN_SECONDS = 0.005
"""Least time of the timed calls in a turn, and of those before them: enough to pass a processor's last cache once."""
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
        samples: For every file, milliseconds per call, shape (rounds, samples per round).
        session_ms: For every file, milliseconds to open it.
        calls_per_sample: Number of calls that a sample is the mean of.
        min_samples: Number of samples that were asked for.
        seed: Seed of inputs, order and resampling.
        environment: The machine, as `runtime.environment` tells it.
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

    @cached_property
    def models(self) -> dict[str, Latency]:
        """Percentiles of every file."""
        return {name: statistics.latency(samples, self.session_ms[name]) for name, samples in self.samples.items()}

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
            return cls(**content)
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
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
    progress: Callable[[float], None] | None = None,
) -> Benchmark:
    """Measure ONNX files against the first of them, on random inputs.

    Args:
        paths: ONNX files; the first is the reference.
        provider: `cpu` or `cuda`.
        threads: Threads inside one operator.
        batch: Batch size.
        min_seconds: Measure at least so long, all files together, after the warm-up ...
        min_samples: ... and until every file has so many samples, or a cap is reached (and a warning given).
        warmup_seconds: Run every file at least so long before, ...
        warmup_samples: ... and at least so many times.
        seed: Seed of inputs, order and resampling.
        progress: Called with the share that is done, 0 to 1, a few times a second.

    Raises:
        InvalidModelError: a file cannot be run.
        ProviderUnavailableError: the provider is not active.
        ExportError: there are no files, or one does not take such inputs.
    """
    if not paths:
        raise ExportError("there is nothing to measure", cure="name at least one ONNX file")
    machine = environment()
    names = _names(paths)
    opened = [_open(path, provider, threads) for path in paths]
    calls = [_caller(session, batch, seed, provider, path) for path, (session, _) in zip(paths, opened, strict=True)]
    seconds = [_warm_up(call, warmup_seconds, warmup_samples) for call in calls]
    calls_per_sample = max(1, math.ceil(SAMPLE_SECONDS / min(seconds)))
    turns = [_Turn(call, s, calls_per_sample) for call, s in zip(calls, seconds, strict=True)]
    samples = _measure(turns, min_seconds, min_samples, seed, progress)
    return Benchmark(
        provider=provider,
        threads=threads,
        batch=batch,
        samples=dict(zip(names, samples, strict=True)),
        session_ms={name: ms for name, (_, ms) in zip(names, opened, strict=True)},
        calls_per_sample=calls_per_sample,
        min_samples=min_samples,
        seed=seed,
        environment=machine,
    )


class _Turn:
    """What one file does in one round: calls that fill the caches, then samples.

    Args:
        call: Runs the file once.
        seconds: About how long a call takes.
        calls_per_sample: Number of calls in a sample.
    """

    def __init__(self, call: Callable[[], object], seconds: float, calls_per_sample: int) -> None:
        self.call, self.calls_per_sample = call, calls_per_sample
        self.settling_calls = max(1, math.ceil(TURN_SECONDS / seconds))
        self.samples = max(1, math.ceil(TURN_SECONDS / (seconds * calls_per_sample)))

    def __call__(self) -> list[float]:
        """Milliseconds per call of every sample."""
        for _ in range(self.settling_calls):
            self.call()
        return [_time(self.call, self.calls_per_sample) * 1e3 for _ in range(self.samples)]


def _measure(
    turns: Sequence[_Turn],
    min_seconds: float,
    min_samples: int,
    seed: int,
    progress: Callable[[float], None] | None,
) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    samples: list[list[list[float]]] = [[] for _ in turns]
    rounds = math.ceil(min_samples / min(turn.samples for turn in turns))
    start = shown = perf_counter()
    with _no_collection():
        while True:
            for index in rng.permutation(len(turns)):
                samples[index].append(turns[index]())
            now = perf_counter()
            done = min((now - start) / min_seconds if min_seconds else 1.0, len(samples[0]) / rounds)
            if done >= 1 or now - start > max(CAP_SECONDS, 4 * min_seconds):
                break
            if progress and now - shown > 0.2:
                progress(done)
                shown = now
    if progress:
        progress(1.0)
    return [np.array(rows) for rows in samples]


def _open(path: str | Path, provider: str, threads: int) -> tuple[ort.InferenceSession, float]:
    """A session, and the milliseconds it took to create. The first creation, which also starts ORT, is not counted."""
    create_session(path, provider=provider, threads=threads)
    start = perf_counter()
    session = create_session(path, provider=provider, threads=threads)
    return session, (perf_counter() - start) * 1e3


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


def _warm_up(call: Callable[[], object], seconds: float, samples: int) -> float:
    """Run until both are reached; return the median time of the later half of the calls, in seconds."""
    times: list[float] = []
    start = perf_counter()
    while len(times) < max(2, samples) or perf_counter() - start < seconds:
        times.append(_time(call, 1))
    return float(np.median(times[len(times) // 2 :]))


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
