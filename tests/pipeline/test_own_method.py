"""A whole run with a selection method of the user's own, in a file beside the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import InputError
from compressor.pipeline import compress
from compressor.structure import Plan

MODEL = """
from torch import nn

def build():
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), *head)
"""
METHOD = """
import torch
from compressor.selection.base import Scored

class Last(Scored):
    name = "last"
    summary = "keeps the last units"
    paper = "nowhere"

    def scores(self, group, model):
        return torch.arange(float(group.size))
"""
RECIPE = """
model: {builder: model.py:build, input: [1, 8, 8]}
data: {source: digits}
compress: {method: method.py:Last, target: {macs: 0.6}, calibration: {images: 32}, refit: false}
finetune: {epochs: 0}
benchmark: {seconds: 0.05}
accept: {accuracy_drop: null, speedup: null}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "model.py").write_text(MODEL)
    (folder / "method.py").write_text(METHOD)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def test_a_method_beside_the_recipe_chooses_the_units(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = compress(project / "recipe.yaml", "run")
    assert report.accepted
    kept = Plan.load(tmp_path / "run/plan.json").kept
    assert kept and all(units == tuple(range(8 - len(units), 8)) for units in kept.values())
    before = (tmp_path / "run/log.txt").read_text()
    compress(project / "recipe.yaml", "run")
    assert "select: done already" in (tmp_path / "run/log.txt").read_text().removeprefix(before)


def test_a_change_of_its_code_selects_again(project: Path, tmp_path: Path) -> None:
    def selections() -> int:
        return len([path for path in (tmp_path / "stages").iterdir() if path.name.startswith("select")])

    compress(project / "recipe.yaml", tmp_path)
    assert selections() == 1
    (project / "method.py").write_text(METHOD.replace("torch.arange(float(group.size))", "torch.ones(group.size)"))
    compress(project / "recipe.yaml", tmp_path)
    assert selections() == 2
    assert all(units[0] == 0 for units in Plan.load(tmp_path / "plan.json").kept.values())


def test_a_method_that_is_wrong_is_named_before_the_run_begins(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="recipe.yaml: compress.method: .*method.py' has no 'Lost'"):
        compress(project / "recipe.yaml", tmp_path, ["compress.method=method.py:Lost"])
