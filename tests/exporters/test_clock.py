"""A clock that a busy machine does not bend."""

from __future__ import annotations

import gc
import itertools
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

import exporters
from exporters import clock
from exporters.clock import THREAD_CPU, WALL, calm, clock_for, is_fine, timed
from exporters.providers import find_provider


def test_one_thread_on_the_processor_is_timed_by_its_own_time() -> None:
    assert clock_for(find_provider("cpu"), 1) == THREAD_CPU
    assert clock_for(find_provider("cpu"), 2) == WALL
    assert clock_for(find_provider("cuda"), 1) == WALL


def test_a_clock_that_stands_still_or_moves_in_large_steps_is_not_used() -> None:
    ticks = itertools.count()
    assert clock_for(find_provider("cpu"), 1, lambda: 0.0) == WALL
    assert clock_for(find_provider("cpu"), 1, lambda: next(ticks) // 1_000_000 * 0.0156) == WALL
    assert is_fine(lambda: next(ticks) * 1e-6)


def test_waiting_costs_no_processor_time() -> None:
    cpu, wall = timed(lambda: time.sleep(0.02), 2)
    assert wall >= 0.02 and cpu < 0.5 * wall


def test_the_garbage_collector_is_kept_out_and_let_in_again() -> None:
    assert gc.isenabled()
    with calm():
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.skipif(not Path("/proc/self/sched").exists(), reason="the kernel does not tell the turns of a thread")
def test_long_turns_are_asked_for_and_given_back() -> None:
    def turn() -> str:
        lines = Path("/proc/thread-self/sched").read_text().splitlines()
        return next((line.split()[-1] for line in lines if line.startswith("se.slice")), "")

    before = turn()
    with calm() as granted:
        assert not granted or not before or int(turn()) == clock.SLICE_NS
    assert turn() == before


def test_a_thread_of_another_policy_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.system() == "Linux":
        monkeypatch.setattr(os, "sched_getscheduler", lambda pid: os.SCHED_BATCH)
    with calm() as granted:
        assert not granted


def test_the_result_says_which_clock_and_what_the_wall_clock_said(dense_and_copy: list[Path]) -> None:
    result = exporters.benchmark(dense_and_copy, min_seconds=0.1, min_samples=20, warmup_seconds=0.01, memory=False)
    entry = result.to_dict()
    assert entry["clock"] == THREAD_CPU and set(entry["wall_speedup"]) == set(entry["aa"]) == {"median", "low", "high"}
    assert all(model["wall_p50_ms"] >= 0.9 * model["p50_ms"] for model in entry["models"].values())


def test_a_clock_that_does_not_advance_gives_wall_times(
    dense_and_copy: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["exporters.benchmark"], "clock_for", lambda provider, threads: WALL)
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    result = exporters.benchmark(dense_and_copy, min_seconds=0.05, min_samples=10, warmup_seconds=0.01, memory=False)
    assert result.clock == WALL and all(latency.p50_ms > 0 for latency in result.models.values())


@pytest.fixture(scope="module")
def dense_and_copy(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    import torch

    folder = tmp_path_factory.mktemp("clock")
    file = exporters.export_onnx(torch.nn.Conv2d(8, 32, 3), torch.randn(1, 8, 24, 24), folder / "a.onnx")
    return [file, file]


def test_others_that_keep_every_core_busy_do_not_make_a_file_faster_than_itself(dense_and_copy: list[Path]) -> None:
    code = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        result = exporters.benchmark(dense_and_copy, min_seconds=0.3, min_samples=50, warmup_seconds=0.01, memory=False)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert result.speedup is not None and result.aa is not None
    assert result.doubt or (0.9 < result.speedup.median < 1.1 and 0.9 < result.aa.median < 1.1)
