"""Whatever a file holds, reading it ends with a result or with one of our own errors: no traceback, no hang.

Files that are right are damaged at random, in their structure and in their bytes. `COMPRESSOR_FUZZ=10000` runs so many
cases in all.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import save as safetensors
from torch import nn

from compressor.errors import CompressorError
from compressor.models.checkpoint import load_checkpoint
from compressor.pipeline.checks import check_recipe
from compressor.pipeline.results import read_samples
from compressor.recipe import AcceptSection, Recipe, Target, dump_recipe, load_recipe
from compressor.report import Report, write_report
from compressor.report.acceptance import judge
from compressor.report.baseline import load_baseline
from compressor.report.writers.base import Writer
from compressor.report.writers.console import print_report
from compressor.structure import Plan, find_groups, shrink
from compressor.support import plugins
from exporters.benchmark import Benchmark
from exporters.errors import ExportError
from exporters.latency_table import LatencyTable
from tests.networks import INPUT, build
from tests.report.examples import report, samples

TARGETS = 7
CASES = int(os.environ.get("COMPRESSOR_FUZZ", "240")) // TARGETS
SECONDS = 20
fuzz = settings(
    max_examples=CASES,
    deadline=1000 * SECONDS,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)

NUMBERS = [0, -0.0, -1, 3, 0.5, 10**30, 10**400, 2**63, 1e308, float("inf"), float("nan"), True]
TEXTS = [
    "",
    "a",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "[bold]",
    "\x00",
    "a" * 5000,
    "é\u202e",
    "${x}",
    "\ud800",
]


def anything(rng: random.Random, depth: int = 3) -> Any:
    """A value that nobody expects."""
    match rng.choice(["number", "text", "none", "list", "dict"]):
        case "number":
            return rng.choice(NUMBERS)
        case "text":
            return rng.choice(TEXTS)
        case "list" if depth:
            return [anything(rng, depth - 1) for _ in range(rng.randrange(4))]
        case "dict" if depth:
            return {rng.choice(TEXTS): anything(rng, depth - 1) for _ in range(rng.randrange(4))}
    return None


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def damaged(rng: random.Random, document: Any) -> Any:
    """A copy of a document in which a value or two are replaced, removed, repeated, nested or added."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice([1, 1, 2, 3])):
        owner, key = _place(rng, document)
        match rng.choice(["replace", "alike", "remove", "repeat", "deep", "add"]):
            case "replace":
                owner[key] = anything(rng)
            case "alike":
                kind = type(owner[key])
                alike = [v for v in [*NUMBERS, *TEXTS, [], {}, [1], {"a": 1}] if type(v) is kind]
                owner[key] = rng.choice(alike or [None])
            case "remove":
                del owner[key]
            case "repeat" if isinstance(owner, list):
                owner[key:key] = [owner[key]] * rng.choice([1, 3, 300])
            case "deep":
                owner[key] = nested(rng.choice([30, 300, 3000]))
            case _ if isinstance(owner, dict):
                owner[rng.choice(TEXTS)] = anything(rng)
            case _:
                owner.append(anything(rng))
    return document


def _place(rng: random.Random, document: Any) -> tuple[Any, Any]:
    """A container within a document, and one of its keys."""
    owner: Any = {"": document} if not isinstance(document, (dict, list)) or not document else document
    while True:
        key = rng.choice(list(owner) if isinstance(owner, dict) else range(len(owner)))
        inner = owner[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.2:
            return owner, key
        owner = inner


def spoilt(rng: random.Random, content: bytes) -> bytes:
    """The bytes of a file, sometimes cut off or with some of them changed."""
    at = rng.randrange(len(content) + 1)
    match rng.choice(["cut", "changed", "noise", *["whole"] * 12]):
        case "cut":
            return content[:at]
        case "changed":
            return content[:at] + rng.randbytes(rng.randint(1, 8)) + content[at + 1 :]
        case "noise":
            return rng.randbytes(rng.randrange(60))
    return content


def to_json(document: Any) -> bytes:
    """As JSON, infinities as most programs write them; the text of what Python itself nests too deeply for."""
    try:
        return json.dumps(document).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b"[" * 3000 + b"]" * 3000


@contextlib.contextmanager
def only_our_errors() -> Any:
    with contextlib.suppress(CompressorError, ExportError):
        yield


@pytest.fixture(scope="module")
def folder() -> Any:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


RECIPE = {
    "model": {"builder": "net.py:build", "args": {"a": 1}, "checkpoint": "a.pth", "input": [3, 8, 8]},
    "data": {"source": "digits", "root": "images", "normalize": {"mean": [0.5], "std": [0.5]}, "batch_size": 4},
    "compress": {"method": "imitation", "options": {}, "target": {"macs": 0.5}, "keep": ["a*"]},
    "finetune": {"epochs": 1, "lr": 0.1},
    "benchmark": {"provider": "cpu", "threads": 1, "batch_sizes": [1]},
    "accept": {"accuracy_drop": 0.01, "baseline": {"slowdown": 0.1}},
    "seed": 0,
}


@fuzz
@given(seed=st.integers(0, 2**32))
def test_recipes(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    try:
        text = yaml.safe_dump(damaged(rng, RECIPE)).encode("utf-8", "surrogatepass")
    except RecursionError:
        text = b"model: " + b"[" * 3000
    path = folder / "recipe.yaml"
    path.write_bytes(spoilt(rng, text))
    sets = ["seed=1", "seed", "a.b=*x", "compress.target={size: .5}", "x=!!x"]
    overrides = rng.sample(sets, rng.choice([0, 0, 1, 2]))
    with only_our_errors():
        recipe = load_recipe(path, overrides)
        check_recipe(recipe)
        path.write_text(dump_recipe(recipe))
        assert load_recipe(path) == recipe


@fuzz
@given(seed=st.integers(0, 2**32))
def test_plans(folder: Path, seed: int) -> None:
    rng, path, model = random.Random(seed), folder / "plan.json", MODEL
    path.write_bytes(spoilt(rng, to_json(damaged(rng, PLAN))))
    with only_our_errors():
        shrink(model, Plan.load(path))(torch.zeros(1, *INPUT))


@fuzz
@given(seed=st.integers(0, 2**32))
def test_reports(folder: Path, seed: int) -> None:
    rng, path = random.Random(seed), folder / "report.json"
    path.write_bytes(spoilt(rng, to_json(damaged(rng, REPORT))))
    with only_our_errors():
        read = Report.load(path)
        rules = judge(AcceptSection(accuracy_drop=0.1, speedup=1.0), Target(macs=0.5), read, report())
        judge(AcceptSection(), Target(size=0.5), report(), read)
        read = read.model_copy(update={"accept": [*read.accept, *rules]})
        print_report(read, Console(file=io.StringIO()))
        write_report(read.model_copy(update={"history": read.history if rng.random() < 0.1 else []}), folder)
        assert "<script>alert" not in (folder / "report.html").read_text()
        load_baseline(path)


@fuzz
@given(seed=st.integers(0, 2**32))
def test_raw_latencies(folder: Path, seed: int) -> None:
    of = report(benchmarks=report().benchmarks[:1])
    rng, path = random.Random(seed), folder / "samples-batch1.json"
    path.write_bytes(spoilt(rng, to_json(damaged(rng, SAMPLES))))
    with only_our_errors():
        raw = read_samples(folder, of)
        if rng.random() < 0.1:
            write_report(of.model_copy(update={"history": []}), folder, raw)


@fuzz
@given(seed=st.integers(0, 2**32))
def test_latency_tables(folder: Path, seed: int) -> None:
    rng, path = random.Random(seed), folder / "table.json"
    path.write_bytes(spoilt(rng, to_json(damaged(rng, TABLE))))
    with only_our_errors():
        LatencyTable.load(path).save(path)


@fuzz
@given(seed=st.integers(0, 2**32))
def test_checkpoints(folder: Path, seed: int) -> None:
    rng, model = random.Random(seed), nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    content = damaged(rng, {"state_dict": dict(model.state_dict()), "epoch": 3, "args": {"lr": 0.1, "deep": [[]]}})
    if rng.random() < 0.5 and isinstance(content, dict):
        content["state_dict"] = {"module.0.weight": tensor(rng), **model.state_dict()}
    suffix, write = rng.choice([(".pth", save_torch), (".safetensors", save_safetensors)])
    path = folder / f"weights{suffix}"
    path.write_bytes(spoilt(rng, write(content)))
    with only_our_errors():
        load_checkpoint(model, path)


@fuzz
@given(seed=st.integers(0, 2**32))
def test_overrides(seed: int) -> None:
    rng = random.Random(seed)
    key = rng.choice(["seed", "compress.target", "data.normalize.mean", "accept", "model.args", "a b", ""])
    text = "".join(rng.choice("{}[]:,-&*!|>%@`'\"# \n\t0129.eE~aZ\x00é") for _ in range(rng.randrange(30)))
    with only_our_errors():
        load_recipe(VALID, [f"{key}={text}"])


def tensor(rng: random.Random) -> torch.Tensor:
    kind = rng.choice([torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64])
    return torch.zeros([rng.randrange(4) for _ in range(rng.randrange(5))], dtype=kind)


def save_torch(content: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
    except RecursionError:
        return b"(" * 1000
    return buffer.getvalue()


def save_safetensors(content: Any) -> bytes:
    found = content.get("state_dict") if isinstance(content, dict) else None
    names = found if isinstance(found, dict) else {}
    return safetensors({str(n): t.contiguous().clone() for n, t in names.items() if isinstance(t, torch.Tensor)})


def _plan() -> tuple[nn.Module, Any]:
    model = build("residual")
    return model, json.loads(Plan.uniform(find_groups(model, torch.zeros(1, *INPUT)), 0.5).to_json())


def _samples() -> Any:
    rows = {name: np.ones((3, 4)).tolist() for name in ("dense", "compact")}
    fields: dict[str, Any] = {"provider": "cpu", "threads": 1, "batch": 1, "session_ms": {"dense": 1.0, "compact": 1.0}}
    return fields | {"samples": rows, "calls_per_sample": 1, "min_samples": 5, "seed": 0, "environment": {}}


def _valid() -> Path:
    path = Path(tempfile.mkdtemp()) / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def _table() -> Any:
    operators = [["conv", "Conv", [[1, 3, 8, 8]], [[1, 4, 8, 8]]], ["relu", "Relu", [[1, 4, 8, 8]], [[1, 4, 8, 8]]]]
    network = {"widths": {"conv": 4}, "us": 12.5, "operators": [[0, 10.0], [1, 2.5]]}
    settings = {"schema": 1, "device": {"cpu": "A CPU"}, "provider": "cpu", "threads": 1, "batch": 1}
    return settings | {"operators": operators, "networks": [network, network]}


MODEL, PLAN = _plan()
REPORT, SAMPLES, TABLE, VALID = json.loads(report().to_json()), _samples(), _table(), _valid()


def test_what_is_not_damaged_is_read(tmp_path: Path) -> None:
    files: dict[str, tuple[Any, Callable[[Path], Any]]] = {
        "plan.json": (PLAN, Plan.load),
        "report.json": (REPORT, Report.load),
        "samples.json": (SAMPLES, Benchmark.from_samples),
        "table.json": (TABLE, LatencyTable.load),
    }
    for name, (content, load) in files.items():
        (tmp_path / name).write_bytes(to_json(content))
        load(tmp_path / name)
    assert isinstance(load_recipe(VALID), Recipe)
    assert set(plugins.discover("compressor.report.writers", Writer)) >= {"report.html"}
    write_report(report(), tmp_path, samples(report()))
