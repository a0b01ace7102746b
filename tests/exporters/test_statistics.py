from __future__ import annotations

import numpy as np
import pytest

from exporters import statistics


def passes(rng: np.random.Generator, factor: float = 1.0, *, count: int = 20, samples: int = 30) -> np.ndarray:
    """Samples whose passes differ by 2 %, and that are skewed to the right within a pass."""
    level = 1 + 0.02 * rng.standard_normal((count, 1))
    return factor * level * (1 + 0.05 * rng.exponential(size=(count, samples)))


def test_percentiles_are_those_of_all_samples() -> None:
    found = statistics.latency(np.arange(1.0, 102.0).reshape(1, -1), 7.0)
    assert (found.p50_ms, found.p90_ms, found.p99_ms, found.samples, found.session_ms) == (51, 91, 100, 101, 7)


def test_twice_as_fast_is_found() -> None:
    rng = np.random.default_rng(0)
    found = statistics.speedup(passes(rng, 2.0), passes(rng))
    assert found.median == pytest.approx(2.0, rel=0.03) and found.low < 2.0 < found.high
    assert found.high - found.low < 0.15


@pytest.mark.parametrize("count", [5, 20])
def test_interval_covers_the_truth_as_often_as_it_says(count: int) -> None:
    rng = np.random.default_rng(1)
    draws = [[passes(rng, count=count, samples=5) for _ in range(2)] for _ in range(100)]
    intervals = [statistics.speedup(*pair, seed) for seed, pair in enumerate(draws)]
    assert 88 <= sum(found.low <= 1.0 <= found.high for found in intervals) < 100


def test_drift_that_hits_both_cancels() -> None:
    rng = np.random.default_rng(2)
    slower = np.linspace(1.0, 3.0, 20)[:, None]
    found = statistics.speedup(slower * passes(rng, 1.5), slower * passes(rng))
    assert found.high - found.low < 0.2 and found.low < 1.5 < found.high


def test_same_seed_same_interval() -> None:
    rng = np.random.default_rng(3)
    one, other = passes(rng), passes(rng)
    assert statistics.speedup(one, other, 5) == statistics.speedup(one, other, 5)


def test_pieces_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    one, other = passes(rng), passes(rng)
    whole = statistics.speedup(one, other)
    monkeypatch.setattr(statistics, "_CHUNK", 1000)
    assert statistics.speedup(one, other) == whole


def test_spread_and_drift_are_shares_of_the_median() -> None:
    assert statistics.spread(np.linspace(0.5, 1.5, 101)) == pytest.approx(0.4)
    assert statistics.drift(np.array([[1.0]] * 3 + [[5.0]] * 3 + [[1.2]] * 3)) == pytest.approx(0.2)
