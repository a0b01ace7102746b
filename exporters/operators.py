"""What every operator of a network costs inside that network. Needs ONNX Runtime and NumPy, and no other file.

Networks take turns in rounds, in another random order each time; in between, again and again, comes the first of them,
by which all are corrected for a drift of the machine. Each turn has two fresh sessions: one is timed as a whole, the
other by operator, with ONNX Runtime's own profiler, because that slows the calls down. Rounds are repeated until two of
them agree.

As a script, it measures the networks of a directory: `python operators.py` reads `kit.json` beside it and writes
`table.json`.
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
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
WARM_UP, FEWEST_RUNS, TURN_SECONDS = 3, 8, 0.03
"""Calls that are not counted, least number of those that are, and how long they go on."""
MOST_PROFILED = 60
"""Most calls by operator: reading the profiler's record of many short calls takes longer than they took."""
REFERENCE_EVERY = 8
"""The first network comes again after so many others."""
FEWEST_ROUNDS, MOST_ROUNDS, AGREEMENT = 2, 6, 0.02
"""Rounds end when nine of ten networks differ by less than this between the last rounds."""

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
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    before: Sequence[Sequence[Measured]] = (),
    keep: Callable[[Sequence[Measured]], None] | None = None,
) -> list[Measured]:
    """Measure networks, each as a whole and by operator.

    Args:
        networks: Serialised ONNX models; the first is the reference for drift.
        provider: `cpu` or `cuda`; CUDA runs asynchronously, so its networks are timed as a whole only.
        threads: Threads inside one operator.
        batch: Size of a first dimension that is free.
        seed: Seed of the order.
        progress: Called with (done, total) turns; the total grows where more rounds are needed.
        before: Rounds of an earlier call that was interrupted.
        keep: Called with every round.

    Raises:
        RuntimeError: the provider is not active.
    """
    bench = _Bench(networks, PROVIDERS[provider], threads, batch)
    rounds = list(before)
    first = rounds[0][0].total if rounds else bench.first.total
    rng = np.random.default_rng([seed, len(rounds)])
    while len(rounds) < FEWEST_ROUNDS or (len(rounds) < MOST_ROUNDS and not _agree(rounds)):
        turns: dict[int, Measured] = {}
        reference = bench.turn(0)
        for count, index in enumerate(rng.permutation(len(networks)).tolist()):
            if count % REFERENCE_EVERY == 0:
                reference = bench.turn(0)
            turns[index] = _scaled(bench.turn(index), first / reference.total)
            if progress:
                total = max(FEWEST_ROUNDS, len(rounds) + 1) * len(networks)
                progress(len(rounds) * len(networks) + count + 1, total)
        rounds.append([turns[index] for index in range(len(networks))])
        if keep:
            keep(rounds[-1])
    return [_median([turns[index] for turns in rounds]) for index in range(len(networks))]


class _Bench:
    """Opens networks and gives them their turns."""

    def __init__(self, networks: Sequence[bytes], provider: str, threads: int, batch: int) -> None:
        self.networks, self.provider, self.threads, self.batch = networks, provider, threads, batch
        self.first = self.turn(0)

    def turn(self, index: int) -> Measured:
        total = self._total(self.networks[index])
        by_operator = self.provider == PROVIDERS["cpu"]
        return Measured(total, self._operators(self.networks[index], total) if by_operator else [])

    def _open(self, network: bytes, profile: str | None = None) -> tuple[ort.InferenceSession, dict[str, np.ndarray]]:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 4
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        session = ort.InferenceSession(network, options, providers=[self.provider])
        if session.get_providers()[0] != self.provider:
            raise RuntimeError(f"{self.provider} is not active: ONNX Runtime fell back to {session.get_providers()[0]}")
        return session, dict(_inputs(session, self.batch))

    def _total(self, network: bytes) -> float:
        session, feed = self._open(network)
        for _ in range(WARM_UP):
            session.run(None, feed)
        times, begin = list[float](), perf_counter()
        while len(times) < FEWEST_RUNS or perf_counter() - begin < TURN_SECONDS:
            start = perf_counter()
            session.run(None, feed)
            times.append(perf_counter() - start)
        return 1e6 * float(np.median(times))

    def _operators(self, network: bytes, total: float) -> list[tuple[Operator, float]]:
        runs = min(MOST_PROFILED, max(FEWEST_RUNS, int(1e6 * TURN_SECONDS / total)))
        with tempfile.TemporaryDirectory() as directory:
            session, feed = self._open(network, str(Path(directory, "profile")))
            for _ in range(WARM_UP + runs):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text())
        return [(operator, _middle(times[WARM_UP:])) for operator, times in _by_operator(events).items()]


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


def _middle(times: Sequence[float]) -> float:
    """The mean of the middle half: of whole microseconds, the median would be one as well."""
    ordered = np.sort(times)
    quarter = len(ordered) // 4
    return float(ordered[quarter : len(ordered) - quarter].mean())


def _scaled(measured: Measured, factor: float) -> Measured:
    return Measured(measured.total * factor, [(op, us * factor) for op, us in measured.operators])


def _median(turns: Sequence[Measured]) -> Measured:
    total = float(np.median([turn.total for turn in turns]))
    times = np.median([[us for _, us in turn.operators] for turn in turns], axis=0)  # in the same order each time
    return Measured(total, [(op, float(us)) for (op, _), us in zip(turns[0].operators, times, strict=True)])


def _agree(rounds: Sequence[Sequence[Measured]]) -> bool:
    """Whether the medians with and without the last round are the same."""

    def medians(some: Sequence[Sequence[Measured]]) -> np.ndarray:
        return np.median([[turn.total for turn in turns] for turns in some], axis=0)

    change = np.abs(medians(rounds) / medians(rounds[:-1]) - 1)
    return bool(np.percentile(change, 90) < AGREEMENT)


def device() -> dict[str, Any]:
    """What the latencies belong to."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "hardware"))]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "onnxruntime": ort.__version__,
    }


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
    measured = measure_operators(
        [(here / name).read_bytes() for name in kit["files"]],
        provider=settings["provider"],
        threads=settings["threads"],
        batch=settings["batch"],
        progress=_print_progress if sys.stderr.isatty() else None,
    )
    arguments.out.write_text(as_json(settings, kit["widths"], measured, device()))
    print(f"wrote {arguments.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
