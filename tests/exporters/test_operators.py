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
from exporters.operators import Measured, Operator, device, is_here, measure_operators
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
    """A bench on which every call takes as long as `pace` says at that turn."""

    def __init__(self, pace: Callable[[int], float]) -> None:
        self.pace, self.turns = pace, 0

    def turn(self, index: int) -> Measured:
        self.turns += 1
        us = self.pace(self.turns) * (100.0 - index)
        return Measured(us, [(Operator("conv", "Conv", (), ()), us)])


@pytest.mark.parametrize(
    ("pace", "off", "share"),
    [
        (lambda turn: 3.0 if turn == 11 else 1.0, 0.0, 0.0),  # a load hits the reference once
        (lambda turn: 1 + 0.002 * turn, 0.05, 0.0),  # a machine that becomes slower and slower
        (lambda turn: 1.5 if turn > 40 else 1.0, 0.0, 0.25),  # and one that stays at another pace, after some turns
    ],
    ids=["spike", "drift", "step"],
)
def test_a_drift_is_corrected_and_a_spike_is_not_taken_for_one(
    pace: Callable[[int], float], off: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "_Bench", lambda *arguments: Made(pace))
    turns = measure_operators([b""] * 80)
    wrong = [abs(turn.total / (100.0 - index) / turns[0].total * 100.0 - 1) for index, turn in enumerate(turns)]
    assert np.mean(np.array(wrong) > off + 1e-9) <= share
