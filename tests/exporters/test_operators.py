"""Measuring operators inside their network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import exporters
from exporters import clock, cores, errors, operators, providers
from exporters.errors import ExportError
from exporters.hollow import hollow
from exporters.latency_table import LatencyTable
from exporters.memory import peak_bytes
from exporters.operators import Measured, device, is_here, measure_operators
from tests.exporters.models import Residual, with_statistics

X = torch.randn(2, 3, 16, 16)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exporters.export_onnx(with_statistics(Residual()), X, tmp_path_factory.mktemp("network") / "network.onnx")


def test_hollow_runs_the_same_operators(network: Path) -> None:
    file = onnx.load(network)
    whole, empty = measure_operators([file.SerializeToString(), hollow(file)])
    assert [op.kind for op, _ in whole.operators] == [op.kind for op, _ in empty.operators]
    assert [op.outputs for op, _ in whole.operators] == [op.outputs for op, _ in empty.operators]
    assert whole.total > 0 and all(us >= 0 for _, us in whole.operators)


def test_the_script_writes_a_table_without_this_package(network: Path, tmp_path: Path) -> None:
    shutil.copyfile(operators.__file__, tmp_path / "measure.py")
    (tmp_path / "exporters").mkdir()
    for module in (clock, cores, errors, providers):
        shutil.copy(module.__file__, tmp_path / "exporters")
    (tmp_path / "a.onnx").write_bytes(hollow(onnx.load(network)))
    kit = {"settings": {"provider": "cpu", "threads": 1, "batch": 1}, "files": ["a.onnx"], "widths": [{}]}
    (tmp_path / "kit.json").write_text(json.dumps(kit))
    done = subprocess.run(
        [sys.executable, "measure.py"], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    table = LatencyTable.load(tmp_path / "table.json")
    assert table.settings["threads"] == 1 and len(table.measured) == 1


def test_a_table_is_of_this_device_where_all_that_it_knows_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    here = device()
    old = {key: value for key, value in here.items() if key != "usable_cores"}
    assert is_here(here) and is_here(old)
    assert not any(is_here(where) for where in ({}, here | {"usable_cores": 0.5}, old | {"cpu": "other"}))
    monkeypatch.setattr(operators, "usable_cores", lambda: 0.5)
    assert not is_here(here) and is_here(old)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "operators": [], "networks": []}'])
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(ExportError, match="not a latency table"):
        LatencyTable.load(tmp_path / "table.json")


def test_peak_memory_grows_with_the_batch(network: Path) -> None:
    small, large = peak_bytes(network), peak_bytes(network, batch=2048)
    assert small is not None and large is not None
    assert small < large


def test_memory_of_a_file_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        peak_bytes(tmp_path / "missing.onnx")


class Made:
    """A session whose calls take as long as its network's size and the machine's pace at that call say."""

    now = 0

    def __init__(self, size: float) -> None:
        self.size = size

    def run(self, *arguments: object) -> float:
        Made.now += 1
        return self.size


@pytest.mark.parametrize(
    "pace",
    [
        lambda call: 3.0 if call == 111 else 1.0,
        lambda call: 1 + 0.0005 * call,
        lambda call: 1.5 if call > 400 else 1.0,
        lambda call: 1.7 if call // 150 % 2 else 1.0,
    ],
    ids=["spike", "drift", "step", "coming and going"],
)
def test_what_slows_the_reference_as_well_is_taken_out(
    pace: Callable[[int], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(call: Callable[[], float]) -> tuple[float, float]:
        seconds = 1e-4 * call() * pace(Made.now)
        return seconds, seconds

    Made.now = 0
    monkeypatch.setattr(operators, "timed", timed)
    monkeypatch.setattr(operators._Bench, "_open", lambda self, network, *rest: (Made(float(network)), {}))
    monkeypatch.setattr(operators._Bench, "_profiled", lambda self, network: Measured(0.0))
    turns = measure_operators([str(100 - index).encode() for index in range(80)])
    wrong = [abs(turn.total / turns[0].total / (1 - index / 100) - 1) for index, turn in enumerate(turns)]
    assert np.mean(wrong) < 0.01 and max(wrong) < 0.1
