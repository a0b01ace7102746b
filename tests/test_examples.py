"""The examples in the docstrings of all public names run, in a folder that holds a recipe, a report and ONNX files."""

from __future__ import annotations

import doctest
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import compressor
import exporters
from tests.report.examples import report

NAMES = [(module, name) for module in (compressor, exporters) for name in module.__all__]
MODEL = """
from torch import nn

def build():
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), *head)
"""
RECIPE = """
model: {builder: model.py:build, input: [1, 8, 8]}
data: {source: digits}
compress: {target: {macs: 0.5}, method: magnitude, calibration: {images: 32}, refit: false}
finetune: {epochs: 0}
benchmark: {seconds: 0.05}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the examples read."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "model.py").write_text(MODEL)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "report.json").write_text(report().to_json())
    for name, width in (("dense", 64), ("compact", 8)):
        model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))
        exporters.export_onnx(model, torch.randn(2, 4), folder / f"{name}.onnx")
    return folder


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda value: getattr(value, "__name__", value))
def test_the_example_of_a_public_name_runs(
    module: ModuleType, name: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    torch.manual_seed(0)
    text = getattr(module, name).__doc__ or ""
    names = {"compressor": compressor, "exporters": exporters, "torch": torch, "nn": nn, "os": os, "Path": Path}
    test = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    assert test.examples, f"give {module.__name__}.{name} an example"
    told: list[str] = []
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    assert not doctest.DocTestRunner(optionflags=flags).run(test, out=told.append).failed, "".join(told)
