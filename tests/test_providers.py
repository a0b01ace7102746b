"""A new execution provider is one row of one table: everything that takes or measures one knows it from there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import exporters
from compressor.cli.app import app
from compressor.errors import InputError
from compressor.recipe import BenchmarkSection, load_recipe
from compressor.recipe.starter import write_starter
from exporters.clock import WALL, clock_for
from exporters.operators import measure_operators
from exporters.providers import PROVIDERS, Provider, find_provider

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "samples/digits/recipe.yaml"
NPU = Provider("npu", "NpuExecutionProvider", package="onnxruntime-npu")


@pytest.fixture
def npu(monkeypatch: pytest.MonkeyPatch) -> Provider:
    """A provider that no ONNX Runtime has."""
    monkeypatch.setitem(PROVIDERS, NPU.name, NPU)
    return NPU


@pytest.mark.usefixtures("npu")
def test_a_new_row_is_accepted_by_the_recipe() -> None:
    assert load_recipe(RECIPE, ["benchmark.provider=npu"]).benchmark.provider == "npu"
    known = ", ".join(f"'{name}'" for name in PROVIDERS if name != "npu")
    with pytest.raises(InputError, match=f"benchmark.provider: expected {known} or 'npu', got 'tpu'"):
        load_recipe(RECIPE, ["benchmark.provider=tpu"])


@pytest.mark.usefixtures("npu")
def test_a_new_row_is_accepted_by_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[object]()
    monkeypatch.setattr(exporters, "benchmark", lambda files, **options: asked.append(options["provider"]) or 1 / 0)
    CliRunner().invoke(app, ["benchmark", "a.onnx", "--provider", "npu"], obj={})
    assert asked == ["npu"]
    refused = CliRunner().invoke(app, ["benchmark", "a.onnx", "--provider", "tpu"], obj={})
    assert refused.exit_code == 2 and "'tpu' is not one of 'cpu', 'cuda'" in " ".join(refused.output.split())
    page = CliRunner().invoke(app, ["benchmark", "--help"], obj={}, env={"COLUMNS": "200"}).output
    assert "|".join(PROVIDERS) in page


@pytest.mark.usefixtures("npu")
def test_a_new_row_stands_in_the_starter_recipe(tmp_path: Path) -> None:
    write_starter("os.path:join", tmp_path / "recipe.yaml")
    assert f"# {' | '.join(PROVIDERS)}" in (tmp_path / "recipe.yaml").read_text()


def test_a_provider_that_this_onnxruntime_lacks_is_refused_by_name(npu: Provider, tmp_path: Path) -> None:
    with pytest.raises(exporters.ProviderUnavailableError, match=r"no NpuExecutionProvider(.|\n)*onnxruntime-npu"):
        exporters.create_session(tmp_path / "m.onnx", provider="npu")
    with pytest.raises(exporters.ProviderUnavailableError, match="'tpu' is not known(.|\n)*cpu, cuda.*, npu"):
        measure_operators([b""], provider="tpu")
    assert clock_for(npu, threads=1) == WALL


def test_rows_are_found_by_their_own_names() -> None:
    assert [find_provider(name).name for name in PROVIDERS] == list(PROVIDERS)
    assert BenchmarkSection().provider in PROVIDERS


def test_no_code_asks_for_a_provider_by_name() -> None:
    files = [path for package in ("compressor", "exporters") for path in (ROOT / package).rglob("*.py")]
    asked = re.compile(r"""provider\S*\s*[!=]=\s*["']""")
    assert [str(path) for path in files if asked.search(path.read_text())] == []
