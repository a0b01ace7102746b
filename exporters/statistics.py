"""What can be said about latencies: percentiles, and a ratio of medians with the interval that it deserves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
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
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    samples: int
    session_ms: float


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as the reference, with a 95 % interval."""

    median: float
    low: float
    high: float


def latency(samples: np.ndarray, session_ms: float) -> Latency:
    """Summarise samples of any shape, in milliseconds."""
    p50, p90, p99 = (float(p) for p in np.percentile(samples, (50, 90, 99)))
    return Latency(p50, p90, p99, samples.size, session_ms)


def speedup(reference: np.ndarray, other: np.ndarray, seed: int = 0) -> Speedup:
    """The ratio of the medians, with a bootstrap interval over rounds.

    Both files are resampled by the same rounds, so that a drift of the machine cancels; and by blocks of neighbouring
    rounds, because noise that lasts longer than a round makes them alike.

    Args:
        reference: Samples of the reference, shape (rounds, samples per round).
        other: Samples of the other file; the same number of rounds.
        seed: Seed of the resampling.
    """
    rounds = len(reference)
    length = max(1, round(rounds**0.5))
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, rounds, (RESAMPLES, -(-rounds // length), 1))
    indices = ((starts + np.arange(length)) % rounds).reshape(RESAMPLES, -1)[:, :rounds]
    ratios = _medians(reference, indices) / _medians(other, indices)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return Speedup(float(np.median(reference) / np.median(other)), float(low), float(high))


def spread(samples: np.ndarray) -> float:
    """Half the distance of the 10th and 90th percentile, as a share of the median."""
    p10, p50, p90 = np.percentile(samples, (10, 50, 90))
    return float((p90 - p10) / (2 * p50))


def drift(samples: np.ndarray) -> float:
    """Change of the median from the first third of the rounds to the last, as a share of the first."""
    third = max(1, len(samples) // 3)
    return float(np.median(samples[-third:]) / np.median(samples[:third]) - 1)


def _medians(samples: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """The median of every resample, in pieces that fit into memory. Shape of `indices`: (resamples, rounds)."""
    pieces = np.array_split(indices, max(1, min(len(indices), indices.size * samples.shape[1] // _CHUNK)))
    return np.concatenate([np.median(samples[piece].reshape(len(piece), -1), axis=1) for piece in pieces])
