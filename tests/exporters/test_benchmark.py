from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import exporters
from exporters import turns
from exporters.benchmark import Benchmark

QUICK: dict[str, Any] = {"min_seconds": 0.1, "min_samples": 20, "warmup_seconds": 0.02, "warmup_samples": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A file, and one that does a small part of its work."""
    folder, image = tmp_path_factory.mktemp("benchmark"), torch.randn(1, 8, 32, 32)
    large = nn.Sequential(nn.Conv2d(8, 64, 3), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 8, 3))
    return [
        exporters.export_onnx(large, image, folder / "large.onnx"),
        exporters.export_onnx(nn.Conv2d(8, 8, 3), image, folder / "small.onnx"),
    ]


MACHINE = {"load_average": 0.5, "cores": 2}


@pytest.fixture
def synthetic() -> Benchmark:
    """A calm measurement: `b` takes half the time of `a`."""
    rng = np.random.default_rng(0)
    samples = {name: ms * (1 + 0.01 * rng.random((20, 10))) for name, ms in {"a": 2.0, "b": 1.0}.items()}
    return Benchmark("cpu", 1, 1, samples, {"a": 5.0, "b": 4.0}, 1, 50, 0, MACHINE)


def test_smaller_file_is_measured_as_faster(files: list[Path]) -> None:
    result = exporters.benchmark(files, **QUICK)
    assert result.speedup is not None and result.speedup.median > 2 and result.speedup.low > 1
    assert all(latency.samples >= 20 for latency in result.models.values())


def test_file_against_itself_gets_a_name_of_its_own(files: list[Path]) -> None:
    result = exporters.benchmark([files[1]] * 3, **QUICK)
    assert list(result.models) == ["small", "small-2", "small-3"] and list(result.speedups) == ["small-2", "small-3"]


def test_files_take_turns(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    turn = turns.Runner.turn
    monkeypatch.setattr(turns.Runner, "turn", lambda self, *a: order.append(self.path.stem) or turn(self, *a))
    exporters.benchmark(files, **QUICK, control=False)
    rounds = [tuple(order[i : i + 2]) for i in range(0, len(order), 2)]
    assert set(rounds) == {("large", "small"), ("small", "large")}


def test_every_pass_has_sessions_of_its_own(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    create = turns.create_session
    monkeypatch.setattr(turns, "create_session", lambda path, **kw: opened.append(path) or create(path, **kw))
    result = exporters.benchmark(files, **QUICK, control=False)
    assert opened.count(files[0]) == len(result.samples["large"]) + 1


def test_cap_ends_a_measurement_with_a_warning(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "CAP_SECONDS", 0.0)
    result = exporters.benchmark(files[:1], **{**QUICK, "min_seconds": 0.0, "min_samples": 10_000})
    assert any("were asked for" in text for text in result.warnings)


def test_progress_ends_at_one(files: list[Path]) -> None:
    seen: list[float] = []
    exporters.benchmark(files, **QUICK, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_report_entry_has_the_keys_of_the_schema(synthetic: Benchmark) -> None:
    entry = json.loads(json.dumps(synthetic.to_dict()))
    assert set(entry) == {
        *("provider", "threads", "batch", "calls_per_sample", "models", "speedup", "speedups", "warnings"),
        "environment",
        *("clock", "aa", "wall_speedup"),
    }
    assert set(entry["models"]["a"]) == {
        *("p50_ms", "p90_ms", "p99_ms", "samples", "session_ms", "throughput", "peak_bytes"),
        *("wall_p50_ms", "wall_p99_ms"),
    }
    assert set(entry["speedup"]) == {"median", "low", "high"}


def test_more_than_two_files_get_a_speedup_each(synthetic: Benchmark) -> None:
    samples = {**synthetic.samples, "c": synthetic.samples["a"]}
    three = replace(synthetic, samples=samples, session_ms={**synthetic.session_ms, "c": 1.0})
    assert list(three.to_dict()["speedups"]) == ["b", "c"]


def test_one_file_has_no_speedup(synthetic: Benchmark) -> None:
    assert replace(synthetic, samples={"a": synthetic.samples["a"]}).to_dict()["speedup"] is None


def test_the_first_file_is_measured_against_its_own_copy(files: list[Path]) -> None:
    result = exporters.benchmark(files, **QUICK)
    assert result.copy is not None and result.copy.shape == result.samples["large"].shape
    assert result.aa is not None and 0.5 < result.aa.median < 2.0
    assert exporters.benchmark(files, **QUICK, control=False).aa is None


def test_a_control_that_misses_one_widens_every_interval(synthetic: Benchmark) -> None:
    off = replace(synthetic, copy=synthetic.samples["a"] / 1.04)
    assert off.aa is not None and off.aa.low > 1.02
    plain, wide = synthetic.speedups["b"], off.speedups["b"]
    assert wide.median == plain.median and wide.low < plain.low / 1.02 and wide.high > plain.high * 1.02


def test_nothing_is_claimed_beside_a_control_that_is_too_far_off(synthetic: Benchmark) -> None:
    assert replace(synthetic, copy=synthetic.samples["a"]).doubt is None
    off = replace(synthetic, copy=synthetic.samples["a"] / 1.08)
    assert off.doubt is not None and "could not be measured: A/A interval ±8%" in off.doubt
    assert off.doubt in off.warnings


def test_two_measurements_of_the_same_files_count_as_one(synthetic: Benchmark) -> None:
    shorter = {name: samples[:5, :7] for name, samples in synthetic.samples.items()}
    both = synthetic.pooled(replace(synthetic, samples=shorter))
    assert {samples.shape for samples in both.samples.values()} == {(25, 7)}
    assert both.speedup is not None and both.speedup.median == pytest.approx(2.0, rel=0.01)


def test_calm_measurement_has_no_warnings(synthetic: Benchmark) -> None:
    assert synthetic.warnings == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"min_samples": 1000}, "only 200 samples"),
        ({"calls_per_sample": 7}, "mean of 7 calls"),
        ({"environment": {"load_average": 3.0, "cores": 2}}, "load average 3.0 on 2 cores"),
        ({"environment": MACHINE | {"usable_cores": 2.0}, "threads": 3}, "3 threads wait for one another on 2 cores"),
        ({"environment": MACHINE | {"usable_cores": 0.5}}, "may use 0.5 of a core"),
        ({"samples": {"a": np.full((20, 10), 0.01)}}, "overhead of calling"),
        ({"samples": {"a": np.tile([1.0, 2.0], (20, 5))}}, "spread"),
        ({"samples": {"a": np.repeat(np.linspace(1.0, 1.2, 20)[:, None], 10, 1)}}, "drifted by"),
    ],
    ids=["samples", "inner loop", "load", "threads", "quota", "resolution", "spread", "drift"],
)
def test_doubts_become_warnings(synthetic: Benchmark, change: dict[str, Any], text: str) -> None:
    assert [warning for warning in replace(synthetic, **change).warnings if text in warning]


def test_saved_samples_give_the_same_results(synthetic: Benchmark, tmp_path: Path) -> None:
    synthetic.save_samples(tmp_path / "samples.json")
    assert Benchmark.from_samples(tmp_path / "samples.json").to_dict() == synthetic.to_dict()
    assert [file.name for file in tmp_path.iterdir()] == ["samples.json"]


@pytest.mark.parametrize("content", ["", "[1]", '{"samples": {"a": [[1]]}}', '{"samples": {"a": "x"}}'])
def test_file_that_holds_no_samples_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "samples.json").write_text(content)
    with pytest.raises(exporters.ExportError, match="samples.json"):
        Benchmark.from_samples(tmp_path / "samples.json")


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(exporters.ExportError, match="nothing to measure"):
        exporters.benchmark([])


def test_benchmark_is_the_function_whatever_is_imported_first() -> None:
    code = """
import exporters.benchmark, exporters.onnx
from exporters import turns
from exporters.benchmark import Benchmark
import exporters
assert callable(exporters.benchmark) and exporters.Benchmark is Benchmark
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_measuring_needs_no_torch(files: list[Path]) -> None:
    code = f"""
import sys
for name in ("torch", "onnx", "onnxscript", "compressor"):
    sys.modules[name] = None
import exporters
exporters.benchmark([{str(files[1])!r}], **{QUICK!r}).to_dict()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
