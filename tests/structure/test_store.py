"""Equation 2, saved = built: architecture, plan and plain weights give the same network to the last bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from compressor.errors import InputError
from compressor.structure import Plan, load_compact, save_compact, shrink
from tests.structure.examined import examined, random_plan, run, same
from tests.structure.networks import CASES, build

ELSEWHERE = ["residual", "denseconcat", "grouped", "separate", "tied", "raw_buffers", "instance_norm", "dictionaries"]
RELOAD = """
import sys, torch
from pathlib import Path
from compressor.structure import load_compact
from tests.structure.examined import run
from tests.structure.networks import build, inputs_of
for name in sys.argv[2:]:
    directory = Path(sys.argv[1]) / name
    torch.save(run(load_compact(directory, build(name, seed=9)), inputs_of(name)), directory / "outputs.pt")
"""


@pytest.mark.parametrize("name", CASES)
def test_saved_is_built(name: str, tmp_path: Path) -> None:
    known = examined(name)
    for plan in (Plan.uniform(known.groups, 0.5), random_plan(known.groups, 7)):
        small = shrink(known.model, plan)
        save_compact(small, plan, tmp_path)
        loaded = load_compact(tmp_path, build(name, seed=9))
        assert same(run(loaded, known.inputs), run(small, known.inputs))
        assert repr(loaded) == repr(small)
        assert {n: t.shape for n, t in loaded.state_dict().items()} == {
            n: t.shape for n, t in small.state_dict().items()
        }


def test_saved_is_built_in_another_process(tmp_path: Path) -> None:
    expected = {}
    for name in ELSEWHERE:
        known = examined(name)
        plan = random_plan(known.groups, 3)
        small = shrink(known.model, plan)
        save_compact(small, plan, tmp_path / name)
        expected[name] = run(small, known.inputs)
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", RELOAD, str(tmp_path), *ELSEWHERE], check=True, cwd=root)
    for name, outputs in expected.items():
        assert same(torch.load(tmp_path / name / "outputs.pt"), outputs), name


def test_what_was_trained_since_is_what_is_stored(tmp_path: Path) -> None:
    known = examined("plain")
    plan = Plan.uniform(known.groups, 0.5)
    small = shrink(known.model, plan)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(0.1)
    save_compact(small, plan, tmp_path)
    assert same(run(load_compact(tmp_path, build("plain")), known.inputs), run(small, known.inputs))


def test_the_directory_holds_weights_and_a_plan_and_nothing_else(tmp_path: Path) -> None:
    stored("plain", tmp_path / "deep" / "down")
    assert sorted(p.name for p in (tmp_path / "deep" / "down").iterdir()) == ["compact.safetensors", "plan.json"]


def test_the_architecture_is_left_as_it_was(tmp_path: Path) -> None:
    stored("plain", tmp_path)
    model = build("plain", seed=9)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    load_compact(tmp_path, model)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_the_result_is_in_evaluation_mode(tmp_path: Path) -> None:
    stored("plain", tmp_path)
    assert not any(m.training for m in load_compact(tmp_path, build("plain").train()).modules())


def stored(name: str, directory: Path) -> Path:
    known = examined(name)
    plan = Plan.uniform(known.groups, 0.5)
    save_compact(shrink(known.model, plan), plan, directory)
    return directory


@pytest.mark.parametrize("missing", ["compact.safetensors", "plan.json"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    (stored("plain", tmp_path) / missing).unlink()
    with pytest.raises(InputError, match=missing):
        load_compact(tmp_path, build("plain"))


@pytest.mark.parametrize("keep", [0, 5, 200])
def test_truncated_weights_are_refused(keep: int, tmp_path: Path) -> None:
    path = stored("plain", tmp_path) / "compact.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="compact.safetensors"):
        load_compact(tmp_path, build("plain"))


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    path = stored("plain", tmp_path) / "compact.safetensors"
    state = load_file(path)
    state["4.weight"] = state["4.weight"][:, :2].clone()
    save_file(state, path)
    with pytest.raises(InputError, match="do not fit"):
        load_compact(tmp_path, build("plain"))


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    stored("plain", tmp_path)
    with pytest.raises(InputError):
        load_compact(tmp_path, build("residual"))
