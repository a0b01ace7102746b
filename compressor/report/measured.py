"""From what the exporters measured to what a report says: the only place where one becomes the other."""

from __future__ import annotations

from dataclasses import asdict

import exporters
from compressor.report.schema import COMPACT, Benchmark, Latency, Parity, Speedup


def latency_of(measured: exporters.Latency) -> Latency:
    """Return the latency of one file."""
    return Latency(**asdict(measured))


def speedup_of(measured: exporters.Speedup) -> Speedup:
    """Return a ratio of latencies with its interval."""
    return Speedup(**asdict(measured))


def benchmark_of(measured: exporters.Benchmark, delivered: str = COMPACT) -> Benchmark:
    """Return a paired measurement.

    Args:
        measured: Of all files of a run, by the names of their variants.
        delivered: The variant that the run is about.
    """
    speedups = {name: speedup_of(found) for name, found in measured.speedups.items()}
    return Benchmark(
        provider=measured.provider,
        threads=measured.threads,
        batch=measured.batch,
        models={name: latency_of(found) for name, found in measured.models.items()},
        delivered=delivered,
        speedup=speedups[delivered],
        speedups=speedups,
        calls_per_sample=measured.calls_per_sample,
        warnings=measured.warnings,
        clock=measured.clock,
        aa=speedup_of(measured.aa) if measured.aa else None,
        wall_speedup=speedup_of(measured.wall_speedups[delivered]) if measured.wall_speedups else None,
    )


def parity_of(measured: exporters.Parity) -> Parity:
    """Return how far a file is from its module."""
    return Parity(max_abs=measured.max_abs, max_rel=measured.max_rel)
