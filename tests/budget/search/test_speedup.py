"""Targets in time, from recipe to report."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from compressor.budget.latency import profile
from compressor.budget.search import speedup as search
from compressor.errors import InputError
from compressor.pipeline import compress, inspect_recipe, profile_recipe
from compressor.recipe import load_recipe
from exporters import operators
from exporters.errors import ExportError

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.one = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 64, 3, padding=1)
        self.two, self.head = nn.Conv2d(64, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head((x + self.two(torch.relu(self.one(x)))).mean((2, 3)))
"""
RECIPE = {
    "model": {"builder": "net.py:Net", "input": [1, 8, 8]},
    "data": {"source": "digits"},
    "compress": {"method": "magnitude", "target": {"speedup": 1.5}, "calibration": {"images": 32}, "refit": False},
    "finetune": {"epochs": 0},
    "benchmark": {"seconds": 0.2},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "net.py").write_text(MODEL)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few networks and short turns: what is measured does not matter here, and is not kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    few_networks(monkeypatch)


def few_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "FIRST", 32)
    monkeypatch.setattr(profile, "FAIR", 1.0)
    monkeypatch.setattr(operators, "TURN_SECONDS", 0.002)
    monkeypatch.setattr(search, "MAX_ERROR", 10.0)


@pytest.fixture(scope="module")
def table(project: Path) -> Path:
    """A table that was measured on a device that is not here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(project / "cache"))
        few_networks(patch)
        profile_recipe(project / "recipe.yaml", out=project / "table.json")
    content = json.loads((project / "table.json").read_text())
    content["device"]["cpu"] = "a board"
    (project / "table.json").write_text(json.dumps(content))
    return project / "table.json"


def test_the_way_to_a_speed_up_is_reported(project: Path, tmp_path: Path) -> None:
    report = compress(project / "recipe.yaml", tmp_path / "run")
    assert report.speed is not None and report.speed.measured
    assert report.speed.attempts[-1].speedup.low > 0
    rule, bench = report.accept[0], report.benchmarks[0]
    assert rule.name == "target" and rule.measured == bench.speedup.low
    assert rule.passed == (bench.speedup.low >= 1.5)
    assert "Search for a 1.50x speed-up" in (tmp_path / "run" / "report.html").read_text()


def test_out_of_reach_is_told_with_what_stands_in_the_way(project: Path, tmp_path: Path) -> None:
    report = compress(project / "recipe.yaml", tmp_path / "run", ["compress.target.speedup=500"])
    assert not report.accepted
    assert report.speed is not None and not report.speed.reached
    assert any("500.00 is out of reach" in warning and "most of what is left" in warning for warning in report.warnings)


def test_a_table_of_another_device_is_met_by_prediction(project: Path, table: Path, tmp_path: Path) -> None:
    report = compress(project / "recipe.yaml", tmp_path / "run", [f"benchmark.table={json.dumps(str(table))}"])
    assert report.speed is not None and not report.speed.measured
    assert report.speed.dense_ms is not None and report.speed.predicted_ms is not None
    rule = report.accept[0]
    assert rule.measured == pytest.approx(report.speed.dense_ms / report.speed.predicted_ms)
    assert rule.measured >= 1.5 and rule.passed and "a board" in rule.text


def test_a_target_in_milliseconds_becomes_a_speed_up(project: Path, tmp_path: Path) -> None:
    dense = compress(project / "recipe.yaml", tmp_path / "run").benchmarks[0].models["dense"].p50_ms
    recipe = load_recipe(project / "recipe.yaml")
    target = recipe.compress.target.model_copy(update={"speedup": None, "latency_ms": dense / 2})
    changed = recipe.model_copy(update={"compress": recipe.compress.model_copy(update={"target": target})})
    report = compress(changed, tmp_path / "run")
    assert report.speed is not None
    assert 1.1 < report.speed.target < 5
    assert report.accept[0].name == "target" and report.accept[0].required == dense / 2
    assert report.accept[0].measured == report.benchmarks[0].models["compact"].p50_ms


def test_milliseconds_that_the_dense_network_meets_are_refused(project: Path, tmp_path: Path) -> None:
    recipe = load_recipe(project / "recipe.yaml")
    target = recipe.compress.target.model_copy(update={"speedup": None, "latency_ms": 1000.0})
    changed = recipe.model_copy(update={"compress": recipe.compress.model_copy(update={"target": target})})
    with pytest.raises(InputError, match="already"):
        compress(changed, tmp_path / "run")


def test_inspect_shows_milliseconds_with_a_table(project: Path, table: Path) -> None:
    found = inspect_recipe(project / "recipe.yaml", [f"benchmark.table={json.dumps(str(table))}"])
    assert all(group.ms is not None and group.ms >= 0 for group in found.groups)
    assert set(found.layers_ms) == {"stem", "one", "two", "head"}
    assert found.fastest is not None and found.fastest > 1


def test_a_table_that_is_missing_or_none_is_refused_at_once(project: Path, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("{}")
    for name, words in (("missing.json", "no such file"), ("none.json", "not a latency table")):
        overrides = [f"benchmark.table={json.dumps(str(tmp_path / name))}"]
        with pytest.raises(ExportError, match=words):
            inspect_recipe(project / "recipe.yaml", overrides)
        with pytest.raises(ExportError, match=words):
            compress(project / "recipe.yaml", tmp_path / "run", overrides)
        assert not list((tmp_path / "run" / "stages").iterdir())


def test_a_table_of_other_settings_is_refused(project: Path, table: Path, tmp_path: Path) -> None:
    overrides = [f"benchmark.table={json.dumps(str(table))}", "benchmark.threads=2"]
    with pytest.raises(InputError, match="threads"):
        compress(project / "recipe.yaml", tmp_path / "run", overrides)


def test_a_table_is_measured_once(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = profile_recipe(project / "recipe.yaml", out=tmp_path / "first.json")
    with monkeypatch.context() as patch:
        patch.setattr(operators._Bench, "turn", None)
        assert profile_recipe(project / "recipe.yaml", out=tmp_path / "second.json") == first
    profile_recipe(project / "recipe.yaml", out=tmp_path / "third.json", fresh=True)
    tables = [(tmp_path / f"{name}.json").read_text() for name in ("first", "second", "third")]
    assert tables[0] == tables[1] != tables[2]


def test_an_interrupted_table_goes_on(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn, turns = operators._Bench.turn, list[int]()

    def interrupted(bench: operators._Bench, index: int) -> operators.Measured:
        turns.append(index)
        if len(turns) == stop:
            raise KeyboardInterrupt
        return turn(bench, index)

    monkeypatch.setattr(operators._Bench, "turn", interrupted)
    stop = 0
    profile_recipe(project / "recipe.yaml", fresh=True)
    whole, stop = len(turns), int(0.8 * len(turns))
    turns.clear()
    with pytest.raises(KeyboardInterrupt):
        profile_recipe(project / "recipe.yaml", fresh=True)
    turns.clear()
    profile_recipe(project / "recipe.yaml")
    assert len(turns) < 0.7 * whole


def test_a_table_needs_a_folder(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        profile_recipe(project / "recipe.yaml", out=tmp_path / "missing" / "table.json")


def test_there_is_no_table_of_a_gpu(project: Path) -> None:
    with pytest.raises(InputError, match="no operators are timed on cuda"):
        profile_recipe(project / "recipe.yaml", overrides=["benchmark.provider=cuda"])


@pytest.mark.parametrize(("macs", "quick"), [(1e9, True), (1e11, False)])
def test_the_loss_is_asked_only_where_refits_are_quick(macs: float, quick: bool) -> None:
    problem = SimpleNamespace(macs=macs, images=lambda: [(torch.zeros(10, 1),)] * 2)
    assert search._is_quick(problem) == quick  # type: ignore[arg-type]
