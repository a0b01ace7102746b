"""A run for a task that is one file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import compressor.tasks
from compressor.data import load_data
from compressor.errors import InputError
from compressor.models.builder import build_model
from compressor.pipeline import check_run, compress
from compressor.recipe import Recipe, load_recipe
from compressor.tasks import find_task
from compressor.training.loop import finetune

TASK = """
from torch.nn.functional import mse_loss

from compressor.tasks import Mean, Task


class Value(Task):
    name = "value"
    summary = "tells the value of a digit, 0 to 9"

    def split(self, batch):
        inputs, targets = super().split(batch)
        return inputs, None if targets is None else targets.float() / 9

    def loss(self, outputs, targets):
        return mse_loss(outputs[:, 0], targets)

    def metrics(self):
        error = lambda outputs, targets: 9 * (outputs[:, 0] - targets).abs()
        return {"error": Mean(error, "mean error", higher_is_better=False, percent=False)}
"""
MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 1))
"""
RECIPE = {
    "task": "value",
    "model": {"builder": "model.py:build", "checkpoint": "value.pth", "input": [1, 8, 8]},
    "data": {"source": "digits", "batch_size": 32, "augment": False},
    "compress": {"method": "imitation", "target": {"macs": 0.5}, "calibration": {"images": 128}, "multiple_of": 1},
    "finetune": {"epochs": 2, "lr": 0.01},
    "benchmark": {"seconds": 0.05},
    "accept": {"speedup": None, "accuracy_drop": 0.5},
}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write a recipe for a task in a file of its own, beside those that are built in."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "value.py").write_text(TASK)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.setattr(compressor.tasks, "__path__", [*compressor.tasks.__path__, str(tmp_path / "tasks")])
    torch.save(trained(load_recipe(tmp_path / "recipe.yaml"), tmp_path), tmp_path / "value.pth")
    yield tmp_path / "recipe.yaml"
    sys.modules.pop("compressor.tasks.value", None)


def trained(recipe: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    task, model = find_task(recipe.task), build_model(recipe.model, folder)
    data = load_data(recipe.data, recipe.model.input, 0, task)
    settings = recipe.finetune.model_copy(update={"epochs": 8, "lr": 0.02})
    finetune(model, None, data.train or (), settings, task=task)
    return model.state_dict()


def test_a_run_is_about_the_task_of_its_recipe(recipe: Path, tmp_path: Path) -> None:
    report = compress(recipe, tmp_path / "run")
    written = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (written["task"], written["recipe"]["task"], written["quality"]["metric"]) == ("value", "value", "error")
    for state in (report.dense, report.pruned, report.compact):
        assert list(state.metrics) == ["error"] and state.accuracy is None
    assert report.dense.metrics["error"] < report.compact.metrics["error"] < 1.5
    assert report.finetune is not None and list(report.finetune.after.metrics) == ["error"]
    assert 0.4 < report.compact.macs / report.dense.macs <= 0.5
    rule = next(rule for rule in report.accept if rule.name == "accuracy_drop")
    assert rule.passed and rule.text == "mean error gained, compact minus dense"
    assert rule.measured == pytest.approx(report.compact.metrics["error"] - report.dense.metrics["error"])
    assert check_run(tmp_path / "run").accept == report.accept
    for file in ("summary.md", "report.html"):
        text = (tmp_path / "run" / file).read_text()
        assert "Mean error" in text and "op-1" not in text


def test_gates_learn_by_the_loss_of_the_task(recipe: Path, tmp_path: Path) -> None:
    gates = {"method": "l0_hc", "epochs": 2, "target": {"macs": 0.6}}
    recipe.write_text(yaml.safe_dump(RECIPE | {"compress": gates}))
    report = compress(recipe, tmp_path / "run", ["finetune.epochs=0"])
    assert report.accepted and len(report.gates) == 2


def test_without_labels_the_agreement_is_that_of_the_task(recipe: Path, tmp_path: Path) -> None:
    data = {"source": "data.py:images"}
    (tmp_path / "data.py").write_text(
        "import torch\ndef images():\n    return {'calibration': torch.randn(300, 1, 8, 8)}"
    )
    recipe.write_text(yaml.safe_dump(RECIPE | {"data": data}))
    report = compress(recipe, tmp_path / "run", ["finetune.epochs=0", "accept={}"])
    assert report.dense.agreement == 1 and 0.5 < (report.compact.agreement or 0) < 1
    assert "Agreement with dense" in (tmp_path / "run" / "summary.md").read_text()


def test_a_misspelt_task_is_named(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"task: 'valu' is not known\n.*did you mean 'value'"):
        compress(recipe, tmp_path / "run", ["task=valu"])
