"""What can be said about latencies: percentiles, and a ratio with the interval that it deserves."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

RESAMPLES = 2000
MAX_CONTROL = 0.05
"""How far the interval of A/A may reach, as a share; beyond, no latency is told from another."""
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Latency:
    """Latency of one file.

    Attributes:
        p50_ms: Median over all samples, in milliseconds of one call.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        samples: Number of samples.
        session_ms: Time to open the file, in milliseconds.
        throughput: Inputs per second at the median.
        peak_bytes: By how much the file raises the peak memory of a process; None where that was not measured.
        wall_p50_ms, wall_p99_ms: Percentiles by the wall clock, where the others are by another one.

    Example:
        >>> result = exporters.benchmark(["dense.onnx"], min_seconds=0.1, memory=False)
        >>> latency = result.models["dense"]
        >>> latency.p50_ms <= latency.p90_ms <= latency.p99_ms
        True
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    samples: int
    session_ms: float
    throughput: float
    peak_bytes: int | None = None
    wall_p50_ms: float | None = None
    wall_p99_ms: float | None = None


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as the reference, with a 95 % interval.

    Attributes:
        median: The ratio of the latencies, reference by other: above 1 is faster.
        low: Lower end of the interval.
        high: Upper end of the interval.

    Example:
        >>> round(exporters.Speedup(median=2.0, low=1.9, high=2.1).half_width, 3)
        0.05
    """

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval, as a share of the ratio."""
        return (self.high - self.low) / (2 * self.median)

    def widened(self, control: Speedup | None) -> Speedup:
        """The same with an interval that reaches further by what an interval of A/A misses 1 by."""
        missed = max(0.0, control.low - 1, 1 - control.high) if control else 0.0
        return Speedup(self.median, self.low / (1 + missed), self.high * (1 + missed))


def latency(
    samples: np.ndarray,
    session_ms: float,
    batch: int = 1,
    peak_bytes: int | None = None,
    wall: np.ndarray | None = None,
) -> Latency:
    """Summarise samples of any shape, in milliseconds of a call of `batch` inputs."""
    p50, p90, p99 = (float(p) for p in np.percentile(samples, (50, 90, 99)))
    felt = (None, None) if wall is None else (float(p) for p in np.percentile(wall, (50, 99)))
    return Latency(p50, p90, p99, samples.size, session_ms, 1e3 * batch / p50, peak_bytes, *felt)


def speedup(reference: np.ndarray, other: np.ndarray, seed: int = 0) -> Speedup:
    """The ratio of the lower quartiles, with a 95 % bootstrap interval over passes.

    Other processes only ever make a call longer, so the lower quartile is further from them than the median is.

    A pass, with sessions of its own, is the unit that is resampled: where a session's memory happens to lie shifts all
    of its samples by some percent, so samples of one session are no evidence about that. Both files are resampled by
    the same passes, so that a drift of the machine cancels. The percentiles are those of the expanded percentile
    interval (Hesterberg, "What Teachers Should Know about the Bootstrap", 2015), because passes are few.

    Args:
        reference: Samples of the reference, shape (passes, samples), at least two passes.
        other: Samples of the other file; the same number of passes.
        seed: Seed of the resampling.
    """
    passes = len(reference)
    indices = np.random.default_rng(seed).integers(0, passes, (RESAMPLES, passes))
    ratios = _quartiles(reference, indices) / _quartiles(other, indices)
    tail = 100 * _tail(passes)
    low, high = np.percentile(ratios, (tail, 100 - tail))
    return Speedup(float(_quartile(reference) / _quartile(other)), float(low), float(high))


def doubt(low: float, high: float) -> str | None:
    """Why nothing can be said of latencies beside which A/A had such an interval; None where it can."""
    reach = max(high - 1, 1 - low)
    return f"latency could not be measured: A/A interval ±{reach:.0%}" if reach > MAX_CONTROL else None


def spread(samples: np.ndarray) -> float:
    """Half the distance of the 10th and 90th percentile, as a share of the median."""
    p10, p50, p90 = np.percentile(samples, (10, 50, 90))
    return float((p90 - p10) / (2 * p50))


def drift(samples: np.ndarray) -> float:
    """Change of the median from the first third of the passes to the last, as a share of the first."""
    third = max(1, len(samples) // 3)
    return float(np.median(samples[-third:]) / np.median(samples[:third]) - 1)


def _quartile(samples: np.ndarray, axis: int | None = None) -> np.ndarray:
    return np.asarray(np.quantile(samples, 0.25, axis=axis))


def _quartiles(samples: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """The lower quartile of every resample, in pieces that fit into memory. Shape of `indices`: (resamples, passes)."""
    pieces = np.array_split(indices, max(1, min(len(indices), indices.size * samples.shape[1] // _CHUNK)))
    return np.concatenate([_quartile(samples[piece].reshape(len(piece), -1), axis=1) for piece in pieces])


def _tail(passes: int) -> float:
    """The share of resamples beyond each end of a 95 % interval, so that it covers as a t interval does."""
    z, freedom = NormalDist().inv_cdf(0.975), passes - 1
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return NormalDist().cdf(-t * (passes / freedom) ** 0.5)
