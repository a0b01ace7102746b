"""How files take turns while they are timed: rounds in random order, gathered into passes with fresh sessions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime as ort

from exporters import statistics
from exporters.clock import THREAD_CPU, calm, timed
from exporters.errors import CURE, InvalidModelError
from exporters.providers import HOST, find_provider
from exporters.runtime import create_session, random_inputs, reason

TURN_SECONDS = 0.005
"""Least time of the timed calls in a turn, and of those before them: enough to pass a processor's last cache once."""
FEWEST_PASSES, MOST_PASSES = 5, 20
"""Bounds on the number of passes; between them, opening files takes no longer than measuring."""
CAP_SECONDS = 60.0
"""A measurement ends after this wall time, or four times the time asked for, with fewer samples than asked for."""


@dataclass
class Runner:
    """One file: how it is opened, how it takes its turn, and what it has shown so far.

    Attributes:
        path: The file.
        provider, threads, batch, seed: As in `benchmark`.
        clock: Which of the two times of a call counts.
        session_ms: Milliseconds to open it, in every pass.
        cpu: Milliseconds of processor time a call, by pass and sample.
        wall: The same by the wall clock.
        seconds: About how long a call takes.
    """

    path: str | Path
    provider: str
    threads: int
    batch: int
    seed: int
    clock: str
    session_ms: list[float] = field(default_factory=list)
    cpu: list[list[float]] = field(default_factory=list)
    wall: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passes(self) -> list[list[float]]:
        """Milliseconds a call by the clock that counts."""
        return self.cpu if self.clock == THREAD_CPU else self.wall

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
            cpu, wall = timed(self.call)
            times.append(cpu if self.clock == THREAD_CPU else wall)
        self.seconds = float(np.median(times[len(times) // 2 :]))

    def begin_pass(self, warmup_samples: int) -> None:
        """Start over with a fresh session."""
        self.open()
        self.warm_up(0.0, warmup_samples)
        self.cpu.append([])
        self.wall.append([])

    def turn(self, settling_calls: int, samples: int, calls_per_sample: int) -> None:
        """Fill the caches; then note the times of every sample."""
        for _ in range(settling_calls):
            self.call()
        for _ in range(samples):
            cpu, wall = timed(self.call, calls_per_sample)
            self.cpu[-1].append(cpu * 1e3)
            self.wall[-1].append(wall * 1e3)


@dataclass(frozen=True)
class Schedule:
    """How the time is divided; the same in every pass, so that passes can be compared.

    Attributes:
        turns: For every file, the arguments of its turn.
        rounds: Rounds in a pass.
        passes: Passes, at least.
        seconds: Time in turns by the clock that counts, at least.
        precision: Passes go on, up to twice as many, until the interval of every ratio reaches no further, as a share.
        cap: Wall time in all, at most (a pass that has begun is finished).
    """

    turns: list[tuple[int, int, int]]
    rounds: int
    passes: int
    seconds: float
    precision: float
    cap: float

    @classmethod
    def of(
        cls,
        runners: Sequence[Runner],
        calls_per_sample: int,
        min_seconds: float,
        min_samples: int,
        precision: float,
    ) -> Schedule:
        """Divide the time by what the warm-up has shown."""
        opening = sum(runner.session_ms[-1] for runner in runners) / 1e3
        passes = min(MOST_PASSES, max(FEWEST_PASSES, int(min_seconds / opening)))
        turns = [_turn(runner.seconds, calls_per_sample) for runner in runners]
        round_seconds = sum(
            runner.seconds * (settling + samples * calls)
            for runner, (settling, samples, calls) in zip(runners, turns, strict=True)
        )
        by_time = min_seconds / passes / round_seconds
        by_samples = min_samples / passes / min(samples for _, samples, _ in turns)
        rounds = max(1, math.ceil(by_time), math.ceil(by_samples))
        return cls(turns, rounds, passes, min_seconds, precision, max(CAP_SECONDS, 4 * min_seconds))


def _turn(seconds: float, calls_per_sample: int) -> tuple[int, int, int]:
    """Settling calls, samples, and calls per sample of a file whose calls take so long."""
    settling = max(1, math.ceil(TURN_SECONDS / seconds))
    return settling, max(1, math.ceil(TURN_SECONDS / (seconds * calls_per_sample))), calls_per_sample


def take_turns(
    runners: Sequence[Runner],
    schedule: Schedule,
    warmup_samples: int,
    seed: int,
    progress: Callable[[float], None] | None,
) -> bool:
    """Run passes until there is enough to tell the files apart.

    Returns:
        Whether the scheduler granted long turns.
    """
    rng, begin, measured, agreed = np.random.default_rng(seed), perf_counter(), 0.0, list[bool]()
    while len(runners[0].cpu) < schedule.passes or measured < schedule.seconds or _is_open(runners, schedule, seed):
        if len(runners[0].cpu) >= 2 and perf_counter() - begin > schedule.cap:
            break
        for runner in runners:
            runner.begin_pass(warmup_samples)
        with calm() as granted:
            agreed.append(granted)
            for _ in range(schedule.rounds):
                for index in rng.permutation(len(runners)):
                    runners[index].turn(*schedule.turns[index])
        measured += schedule.seconds / schedule.passes
        if progress:
            progress(min(1.0, len(runners[0].cpu) / schedule.passes))
    return all(agreed)


def _is_open(runners: Sequence[Runner], schedule: Schedule, seed: int) -> bool:
    """Whether more passes could make an interval narrow enough."""
    reference, *others = (np.array(runner.passes) for runner in runners)
    if len(reference) >= 2 * schedule.passes:
        return False
    return any(statistics.speedup(reference, other, seed).half_width > schedule.precision for other in others)


def _caller(
    session: ort.InferenceSession, batch: int, seed: int, provider: str, path: str | Path
) -> Callable[[], object]:
    """A function that runs the file once, from inputs in the device's memory to outputs in the device's memory."""
    feed = random_inputs(session, batch, seed)
    device = find_provider(provider).device
    run = partial(session.run, None, feed) if device == HOST else _bound(session, feed, device)
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
