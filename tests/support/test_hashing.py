from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from compressor.support import hashing

NET = "from torch import nn\nclass Net(nn.Linear):\n    def forward(self, x):\n        return super().forward(x){}\n"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fingerprinted", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fingerprinted"] = module
    spec.loader.exec_module(module)
    return module


def test_an_edited_forward_is_another_network(tmp_path: Path) -> None:
    seen = set()
    for change in ("", " * 2"):
        (tmp_path / "net.py").write_text(NET.format(change))
        torch.manual_seed(0)
        seen.add(hashing.of_network(load(tmp_path / "net.py").Net(2, 2)))
    assert len(seen) == 2


def test_other_weights_are_another_network() -> None:
    model = nn.Linear(2, 2)
    before = hashing.of_network(model)
    assert hashing.of_network(model) == before
    with torch.no_grad():
        model.bias.add_(1)
    assert hashing.of_network(model) != before


def test_swapped_files_are_other_data(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(name.encode())
    before = hashing.of_files(tmp_path)
    assert hashing.of_files(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    (tmp_path / "c").rename(tmp_path / "b")
    assert hashing.of_files(tmp_path) != before


def test_what_arguments_name_counts_by_its_contents(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    file, arguments, out = tmp_path / "labels" / "d.pt", {"files": ["labels/d.pt"], "mode": "none"}, tmp_path / "run"

    def found(arguments: object = arguments) -> str:
        return hashing.of_named(arguments, [tmp_path], out=out)

    nothing = found()
    file.write_bytes(b"1")
    first = found()
    file.write_bytes(b"2")
    assert len({nothing, first, found()}) == 3
    assert found({"folder": "labels"}) != nothing
    assert found({"folder": "."}) == nothing  # it holds what the run writes
