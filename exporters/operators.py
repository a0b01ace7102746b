"""What every operator of a network costs inside that network. Needs ONNX Runtime and NumPy, and no other file.

Networks take turns in the order that they are given in. Each turn has two fresh sessions: one is timed as a whole, by
the CPU time of this thread where one thread does the work; the other by operator, with ONNX Runtime's own profiler,
because that slows the calls down. The profiler knows the wall clock only. An operator is short, so that most of its
runs are not interrupted even on a busy machine: the shorter ones of them count.

A few calls of a network are followed by as many of the first one, the reference, and what they take corrects them: a
core is slower while others use the caches and the memory, and that comes and goes.

As a script, it measures the networks of a directory: `python measure.py` reads `kit.json` beside it and writes
`table.json`. What it imports of this package lies beside it as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from exporters.clock import THREAD_CPU, calm, clock_for, timed
from exporters.cores import doubt, usable_cores
from exporters.errors import ProviderUnavailableError
from exporters.providers import PROVIDERS, Provider, find_provider

TURN_SECONDS = 0.04
"""How long the calls of a network go on in a turn, at least."""
BLOCK_SECONDS, MIN_BLOCKS = 0.0015, 3
"""How long calls of a network, or of the reference, follow each other, at least, and how many such blocks there are."""
MIN_CALLS = 3
"""Calls in a block, at least; the first is not counted, because the other network has used the caches before it."""
WARM_UP = 2
"""Calls before the blocks."""
MAX_PROFILED = 40
"""Most calls by operator: reading the profiler's record of many short calls takes longer than they took."""
LONG_CALL_SECONDS = 0.05
"""From here on the profiler slows a call down by so little that one session does for both."""
CHUNK = 8
"""Networks after which it is asked whether more are needed."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """An operator as ONNX Runtime runs it, fused and laid out for the device."""

    name: str
    kind: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


@dataclass
class Measured:
    """One network: microseconds of a call, and of each operator in the order of their running."""

    total: float
    operators: list[tuple[Operator, float]] = field(default_factory=list)


def measure_operators(
    networks: Sequence[bytes],
    *,
    provider: str = "cpu",
    threads: int = 1,
    batch: int = 1,
    turns: Sequence[int] | None = None,
    before: Sequence[Measured] = (),
    keep: Callable[[Sequence[Measured]], bool] = lambda measured: True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measured]:
    """Measure networks, each as a whole and by operator.

    Args:
        networks: Serialised ONNX models; the first is the reference, and is to be the first in `turns`.
        provider: A name in `providers.PROVIDERS`; where operators cannot be timed, networks are timed as a whole only.
        threads: Threads inside one operator.
        batch: Size of a first dimension that is free.
        turns: Numbers of the networks in the order in which they are measured, some more than once; by default, each
            once.
        before: What an earlier call that was interrupted has measured of these turns.
        keep: Called after every few turns with all that is measured so far; false ends the measurement.
        progress: Called with (done, total) turns.

    Returns:
        What was measured, by turns.

    Raises:
        ProviderUnavailableError: the provider is unknown, or not active.
    """
    order, done = list(range(len(networks)) if turns is None else turns), list(before)
    where = find_provider(provider)
    bench = _Bench(networks, where, threads, batch, clock_for(where, threads))
    bench.unit = done[0].total if done else bench.turn(0).total
    while len(done) < len(order):
        done += [bench.turn(index) for index in order[len(done) : len(done) + CHUNK]]
        if progress:
            progress(len(done), len(order))
        if not keep(done):
            break
    return done


def merged(turns: Sequence[Measured]) -> Measured:
    """Several turns of one network as one: the mean of each number, because each turn has been corrected."""
    times = np.mean([[us for _, us in turn.operators] for turn in turns], axis=0)  # in the same order each time
    total = float(np.mean([turn.total for turn in turns]))
    return Measured(total, [(op, float(us)) for (op, _), us in zip(turns[0].operators, times, strict=True)])


class _Bench:
    """Opens networks and gives them their turns, each beside the first one.

    Attributes:
        unit: Microseconds that a call of the first one stands for in all turns; None before it was measured.
    """

    def __init__(self, networks: Sequence[bytes], provider: Provider, threads: int, batch: int, clock: str) -> None:
        self.networks, self.provider, self.threads, self.batch, self.clock = networks, provider, threads, batch, clock
        self.unit: float | None = None
        self._reference = self._open(networks[0])

    def turn(self, index: int) -> Measured:
        """What a network takes, where a call of the first one takes `unit`."""
        network, by_operator = self.networks[index], self.provider.times_operators
        with calm():
            if by_operator and (self.unit or 0) > 1e6 * LONG_CALL_SECONDS:
                return self._profiled(network)
            calls, beside = self._run(*self._open(network))
            operators = self._profiled(network).operators if by_operator else []
            return Measured(self._typical(calls, beside), operators)

    def _typical(self, calls: np.ndarray, beside: np.ndarray) -> float:
        """The microseconds of a call, as long as those beside it take `unit`; both of shape (blocks, calls)."""
        reference = np.median(beside[:, 1:], axis=1)
        if self.unit is None:
            self.unit = 1e6 * float(np.median(reference))
        return self.unit * _middle((calls[:, 1:] / reference[:, None]).ravel())

    def _open(self, network: bytes, profile: str | None = None) -> tuple[ort.InferenceSession, dict[str, np.ndarray]]:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 4
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        session = ort.InferenceSession(network, options, providers=[self.provider.ort_name])
        if (active := session.get_providers()[0]) != self.provider.ort_name:
            raise ProviderUnavailableError(
                f"{self.provider.ort_name} is not active: ONNX Runtime fell back to {active}",
                cure=f"check {self.provider.check}",
            )
        return session, dict(_inputs(session, self.batch))

    def _run(
        self, session: ort.InferenceSession, feed: dict[str, np.ndarray], most: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Seconds of calls, and of calls of the reference in between, each of shape (blocks, calls in a block)."""
        clock = int(self.clock != THREAD_CPU)
        reference, inputs = self._reference
        session.run(None, feed)  # what is allocated once does not count
        once = timed(lambda: session.run(None, feed))[clock]
        size = max(MIN_CALLS, 1 + int(BLOCK_SECONDS / max(once, 1e-9)))
        size = size if most is None else min(size, max(MIN_CALLS, most // MIN_BLOCKS))
        own, beside = list[list[float]](), list[list[float]]()
        while len(own) < MIN_BLOCKS or (np.sum(own) < TURN_SECONDS and (most is None or len(own) * size < most)):
            own.append([timed(lambda: session.run(None, feed))[clock] for _ in range(size)])
            beside.append([timed(lambda: reference.run(None, inputs))[clock] for _ in range(size)])
        return np.array(own), np.array(beside)

    def _profiled(self, network: bytes) -> Measured:
        with tempfile.TemporaryDirectory() as directory:
            session, feed = self._open(network, str(Path(directory, "profile")))
            calls, beside = self._run(session, feed, most=MAX_PROFILED)
            events = json.loads(Path(session.end_profiling()).read_text())
        total, count = self._typical(calls, beside), calls.size + WARM_UP
        operators = []
        for operator, times in _by_operator(events).items():
            if len(times) % count == 0:
                seconds = 1e-6 * np.reshape(times, (count, -1)).sum(axis=1)[WARM_UP:]
                operators.append((operator, self._typical(seconds.reshape(calls.shape), beside)))
        return Measured(total, operators)


def _inputs(session: ort.InferenceSession, batch: int) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    for node in session.get_inputs():
        shape = [size if isinstance(size, int) else batch for size in node.shape]
        if node.type == "tensor(float)":
            yield node.name, rng.standard_normal(shape).astype(np.float32)
        else:
            yield node.name, np.zeros(shape, {"tensor(int64)": np.int64, "tensor(int32)": np.int32}[node.type])


def _by_operator(events: Sequence[Mapping[str, Any]]) -> dict[Operator, list[float]]:
    """The durations of every operator in microseconds, in the order of their running."""
    times: dict[Operator, list[float]] = defaultdict(list)
    for event in events:
        name, ending, _ = event["name"].rpartition("_kernel_time")
        if event.get("cat") == "Node" and ending:
            args = event["args"]
            shapes = (_shapes(args.get(f"{side}_type_shape", ())) for side in ("input", "output"))
            times[Operator(name, args["op_name"], *shapes)].append(event["dur"])
    return times


def _shapes(entries: Sequence[Mapping[str, Sequence[int]]]) -> tuple[Shape, ...]:
    return tuple(tuple(shape) for entry in entries for shape in entry.values())


def _middle(times: np.ndarray) -> float:
    """The mean of the middle half: of numbers that come in steps, a median would be one of the steps."""
    ordered = np.sort(times)
    quarter = len(ordered) // 4
    return float(ordered[quarter : len(ordered) - quarter].mean())


def device() -> dict[str, Any]:
    """What the latencies belong to."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "hardware"))]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "machine": platform.machine(),
        "system": platform.system(),
        "onnxruntime": ort.__version__,
    }


def is_here(where: Mapping[str, Any]) -> bool:
    """Whether latencies that belong to `where` are those of this device. Old tables do not know the usable cores."""
    here = device()
    return {"usable_cores": here["usable_cores"], **where} == here


def as_json(
    settings: Mapping[str, Any],
    widths: Sequence[Mapping[str, int]],
    measured: Sequence[Measured],
    where: Mapping[str, Any],
) -> str:
    """The text of a latency table: operators once each, and for every network its widths and its times."""
    numbers = {op: n for n, op in enumerate(dict.fromkeys(op for m in measured for op, _ in m.operators))}
    networks = [
        {
            "widths": dict(choice),
            "us": round(m.total, 2),
            "operators": [[numbers[op], round(us, 2)] for op, us in m.operators],
        }
        for choice, m in zip(widths, measured, strict=True)
    ]
    operators = [[op.name, op.kind, op.inputs, op.outputs] for op in numbers]
    content = {"schema": 1, "device": dict(where), **settings, "operators": operators, "networks": networks}
    return json.dumps(content, separators=(",", ":"))


def _print_progress(done: int, total: int) -> None:
    print(f"\r{done}/{total} turns", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Measure the networks of the directory that this file lies in."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Measure the networks of this kit, and write the latency table.")
    parser.add_argument("--out", type=Path, default=here / "table.json", help="the file to write")
    parser.add_argument("--provider", choices=PROVIDERS, help="instead of the one that the kit was made for")
    parser.add_argument("--threads", type=int, help="instead of the number that the kit was made for")
    arguments = parser.parse_args()
    if not arguments.out.absolute().parent.is_dir():
        parser.error(f"there is no folder {arguments.out.absolute().parent}")
    if arguments.threads is not None and arguments.threads < 1:
        parser.error("--threads must be at least 1")
    try:
        _measure_kit(here, arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        sys.exit(f"error: {error}")


def _measure_kit(here: Path, arguments: argparse.Namespace) -> None:
    kit = json.loads((here / "kit.json").read_text())
    settings = kit["settings"]
    settings |= {key: value for key in ("provider", "threads") if (value := getattr(arguments, key)) is not None}
    if problem := doubt(settings["threads"], usable_cores()):
        print(f"warning: {problem}", file=sys.stderr)
    turns = measure_operators(
        [(here / name).read_bytes() for name in kit["files"]],
        provider=settings["provider"],
        threads=settings["threads"],
        batch=settings["batch"],
        progress=_print_progress if sys.stderr.isatty() else None,
    )
    arguments.out.write_text(as_json(settings, kit["widths"], turns, device()))
    print(f"wrote {arguments.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
