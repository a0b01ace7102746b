"""Files made to do harm: nothing outside their folder is read or written, and memory is bounded."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import exporters
from compressor.errors import InputError
from compressor.models.checkpoint import load_checkpoint
from exporters.benchmark import Benchmark
from exporters.errors import ExportError, InvalidModelError
from exporters.latency_table import LatencyTable


def with_external_weight(path: Path, location: str) -> None:
    """Write an ONNX file whose weight of 4 numbers lies in another file."""
    weight = numpy_helper.from_array(np.zeros((2, 2), np.float32), "weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=value)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "weight"], ["y"])], "g", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))


@pytest.mark.parametrize("kind", ["parent", "absolute", "link"])
def test_weights_outside_the_folder_of_an_onnx_file_are_not_read(tmp_path: Path, kind: str) -> None:
    secret, folder = tmp_path / "secret.bin", tmp_path / "folder"
    folder.mkdir()
    secret.write_bytes(np.ones(4, np.float32).tobytes())
    if kind == "link":
        (folder / "weights.bin").symlink_to(secret)
    location = {"parent": "../secret.bin", "absolute": str(secret), "link": "weights.bin"}[kind]
    with_external_weight(folder / "model.onnx", location)
    with pytest.raises(InvalidModelError):
        exporters.benchmark([folder / "model.onnx"], min_seconds=0.01, min_samples=1, warmup_seconds=0.0)


def test_weights_beside_an_onnx_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(np.ones(4, np.float32).tobytes())
    with_external_weight(tmp_path / "model.onnx", "weights.bin")
    assert exporters.benchmark([tmp_path / "model.onnx"], min_seconds=0.01, min_samples=1, warmup_seconds=0.0).models


def test_an_archive_is_never_unpacked(tmp_path: Path) -> None:
    folder, model = tmp_path / "folder", nn.Linear(2, 2)
    folder.mkdir()
    torch.save(model.state_dict(), folder / "weights.pth")
    with zipfile.ZipFile(folder / "weights.pth", "a") as archive:
        archive.writestr("../../escaped", "harm")
        archive.writestr("/tmp/escaped-absolutely", "harm")
    before = set(tmp_path.rglob("*"))
    with contextlib.suppress(InputError):
        load_checkpoint(model, folder / "weights.pth")
    assert set(tmp_path.rglob("*")) == before
    assert not Path("/tmp/escaped-absolutely").exists()


NAMES = "abcdefghi"
ALIASES = [f"{b}: &{b} [{','.join(['*' + a] * 9)}]" for a, b in zip(NAMES, NAMES[1:], strict=False)]
ENDLESS = {"tensor": "w", "axis": 0, "role": "producer", "coordinates": {"start": 0, "step": 1, "width": 4_000_000}}
GROUP = {"name": "g", "size": 4_000_000, "kept": [0], "vanishes": False, "slices": [ENDLESS]}
BOMBS = {
    "aliases.yaml": "\n".join(["a: &a [x,x,x,x,x,x,x,x,x]", *ALIASES]),
    "deep.yaml": "model: " + "[" * 50_000,
    "long.yaml": "model: " + "9" * 90_000,
    "deep.json": "[" * 200_000,
    "wide.json": json.dumps({"schema": 1, "groups": [GROUP]}),
}
READ = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (32 << 30, 32 << 30))
from pathlib import Path
from compressor.errors import CompressorError
from compressor.recipe import load_recipe
from compressor.report import Report
from compressor.structure import Plan
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    for read in (load_recipe,) if path.suffix == ".yaml" else (Report.load, Plan.load):
        try:
            read(path)
            sys.exit(f"{path} was read")
        except CompressorError:
            pass
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
sys.exit(f"{grown} kB" if grown > 300_000 else 0)
"""


def test_numbers_beyond_all_bounds_are_refused(tmp_path: Path) -> None:
    path, huge = tmp_path / "file.json", 10**400
    network = {"widths": {}, "us": huge, "operators": []}
    path.write_text(json.dumps({"schema": 1, "device": {}, "operators": [], "networks": [network]}))
    with pytest.raises(ExportError, match="not a latency table"):
        LatencyTable.load(path)
    path.write_text(json.dumps({"samples": {"a": [[huge]]}}))
    with pytest.raises(ExportError, match="not the samples"):
        Benchmark.from_samples(path)


def test_bombs_end_within_bounds(tmp_path: Path) -> None:
    for name, text in BOMBS.items():
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in BOMBS]
    done = subprocess.run([sys.executable, "-c", READ, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
