from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import compressor.pipeline.checks
import compressor.pipeline.context
import compressor.pipeline.run
from compressor.budget.allocate import Budget
from compressor.errors import InputError, MachineError
from compressor.pipeline import check_run, compress, inspect_recipe
from compressor.pipeline.stages import benchmark, export_compact, finetune, quality, shrink
from compressor.recipe import load_recipe
from compressor.report import Report
from compressor.structure import load_compact
from compressor.support.files import sha256
from compressor.training.best import Score
from compressor.training.history import Progress
from exporters import runtime
from exporters.onnx import read_metadata

MODEL = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 16, 3, padding=1)
        self.outer = nn.Conv2d(16, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.outer(torch.relu(self.inner(x))))
        return self.head(x.mean((2, 3)))

def tiny():
    torch.manual_seed(1)
    return Tiny()
"""
TRANSFORMER = """
import torch
from torchvision.models import VisionTransformer

class Grey(VisionTransformer):
    def forward(self, x):
        return super().forward(x.expand(-1, 3, -1, -1))

def build():
    torch.manual_seed(0)
    model = Grey(8, 2, 2, 4, 32, 48, num_classes=10)
    torch.nn.init.normal_(model.heads.head.weight)
    return model
"""
RECIPE = {
    "model": {"builder": "model.py:tiny", "checkpoint": "tiny.pth", "input": [1, 8, 8]},
    "data": {"source": "digits", "batch_size": 16, "augment": False},
    "compress": {"method": "magnitude", "target": {"macs": 0.5}, "calibration": {"images": 64}},
    "finetune": {"epochs": 2, "lr": 0.1, "distill": False},
    "benchmark": {"batch_sizes": [1, 2], "seconds": 0.05},
    "accept": {"parity": 1.0e-4, "speedup": None, "accuracy_drop": None},
}
FILES = {
    *("recipe.yaml", "report.json", "report.html", "summary.md", "junit.xml", "log.txt", "dense.onnx", "compact.onnx"),
    *("compact.safetensors", "plan.json", "stages"),
}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, its checkpoint and a recipe."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "model.py").write_text(MODEL)
    torch.save(build(folder).state_dict(), folder / "tiny.pth")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


@pytest.fixture(scope="session")
def finished(project: Path) -> tuple[Path, Report]:
    """Return the directory and the report of a finished run, to be looked at only."""
    return project / "finished", compress(project / "recipe.yaml", project / "finished")


@pytest.fixture
def run_dir(finished: tuple[Path, Report], tmp_path: Path) -> Path:
    """Return a copy of the finished run."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def build(folder: Path) -> nn.Module:
    """Return the network, without the project's own reader."""
    names: dict[str, object] = {}
    exec((folder / "model.py").read_text(), names)
    model: nn.Module = names["tiny"]()  # type: ignore[operator]
    return model.eval()


def contents(directory: Path) -> dict[str, str]:
    """Return the hash of every file but the log."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name not in ("log.txt", ".lock"))
    return {path.relative_to(directory).as_posix(): sha256(path) for path in files}


def weights(directory: Path) -> tuple[str, str]:
    """Return what must not depend on how often a run was interrupted."""
    return sha256(directory / "plan.json"), sha256(directory / "compact.safetensors")


def test_a_run_leaves_what_the_contract_names(finished: tuple[Path, Report]) -> None:
    names = {path.name for path in finished[0].iterdir() if not path.name.startswith(".")}
    assert names == FILES | {"samples-batch1.json", "samples-batch2.json"}
    assert Report.load(finished[0] / "report.json") == finished[1]


def test_the_memory_that_a_run_needs_is_told(finished: tuple[Path, Report]) -> None:
    assert "memory: up to 0." in (finished[0] / "log.txt").read_text()


def test_too_little_memory_ends_a_run_before_the_long_work(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressor.pipeline.context, "available_memory", lambda: 2**20)
    with pytest.raises(MachineError, match=r"(?s)memory.*cure"):
        compress(project / "recipe.yaml", tmp_path)
    assert not list((tmp_path / "stages").glob("select-*"))


def test_a_finished_run_needs_no_memory(project: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressor.pipeline.context, "available_memory", lambda: 2**20)
    compress(project / "recipe.yaml", run_dir)


def test_the_target_is_met_and_measured(finished: tuple[Path, Report]) -> None:
    report = finished[1]
    assert report.compact.macs <= 0.5 * report.dense.macs
    assert report.compact.params < report.dense.params
    assert report.compact.onnx_bytes == (finished[0] / "compact.onnx").stat().st_size
    assert report.pruned.macs == report.compact.macs
    assert report.accepted


def test_a_target_on_the_loss_holds(project: Path, run_dir: Path) -> None:
    overrides = ["compress.target={loss: 0.1}", "finetune.epochs=0"]
    report = compress(project / "recipe.yaml", run_dir, overrides=overrides)
    assert report.rise is not None and 0 < report.rise <= 0.1
    assert report.compact.macs < report.dense.macs
    assert (report.accept[0].measured, report.accept[0].passed) == (report.rise, True)


def test_the_report_tells_of_every_stage(finished: tuple[Path, Report]) -> None:
    report = finished[1]
    assert [entry.epoch for entry in report.history] == [1, 2]
    assert [benchmark.batch for benchmark in report.benchmarks] == [1, 2]
    assert None not in (report.dense.accuracy, report.pruned.accuracy, report.compact.accuracy)
    assert {"select", "plan", "shrink", "finetune", "benchmark"} <= report.seconds.keys()
    assert {group.name for group in report.pruned_groups} == {"stem", "inner", "outer"}
    assert any("head" in group.layers for group in report.untouched_groups)


def test_fine_tuning_delivers_what_is_best_on_images_that_it_has_not_seen(finished: tuple[Path, Report]) -> None:
    directory, report = finished
    found = report.finetune
    assert found is not None and found.problem is None
    assert (found.delivered, found.images, len(found.held_out.epochs)) == ("epoch 2", 67, 2)
    assert found.after.loss < found.held_out.before.loss
    assert "Fine-tuning delivers epoch 2 of 2: on 67 held-out training images" in (directory / "log.txt").read_text()
    assert not any("did not help" in warning for warning in report.warnings)


def test_fine_tuning_that_does_not_help_leaves_the_network_as_it_was(
    project: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Score, "beats", lambda self, other: False)
    report = compress(project / "recipe.yaml", run_dir, overrides=["finetune.lr=0.09"])
    assert report.finetune is not None and report.finetune.delivered == "before"
    pruned = next((run_dir / "stages").glob("shrink-*"))
    assert sha256(run_dir / "compact.safetensors") == sha256(pruned / "compact.safetensors")
    assert report.compact.accuracy == report.pruned.accuracy
    warning = next(warning for warning in report.warnings if "did not help" in warning)
    assert "lower finetune.lr (now 0.09)" in warning


def test_the_rate_that_the_default_became_is_written_down(project: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((project / "recipe.yaml").read_text())
    del recipe["finetune"]["lr"]
    recipe["data"]["batch_size"] = 64
    (project / "no-rate.yaml").write_text(yaml.safe_dump(recipe))
    report = compress(project / "no-rate.yaml", tmp_path, overrides=["benchmark.batch_sizes=[1]"])
    rate = load_recipe(tmp_path / "recipe.yaml").finetune.lr
    assert rate == report.recipe["finetune"]["lr"] == 0.02 * 40 / 125 / 2  # 1280 images, 2 epochs, batches of 64
    before = contents(tmp_path / "stages")
    compress(tmp_path / "recipe.yaml", tmp_path)
    assert contents(tmp_path / "stages") == before


def test_file_module_and_plan_agree(project: Path, finished: tuple[Path, Report]) -> None:
    small = load_compact(finished[0], build(project))
    images = torch.randn(5, 1, 8, 8)
    session = onnxruntime.InferenceSession(finished[0] / "compact.onnx")
    outputs = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    np.testing.assert_allclose(small(images).detach().numpy(), outputs, atol=1e-4)


def test_the_file_says_where_it_comes_from(project: Path, finished: tuple[Path, Report]) -> None:
    directory, report = finished
    metadata = read_metadata(directory / "compact.onnx")
    assert metadata["compressor.checkpoint_sha256"] == sha256(project / "tiny.pth")
    assert metadata["compressor.recipe_sha256"] == sha256(directory / "recipe.yaml")
    assert metadata["compressor.dense_macs"] == str(report.dense.macs)
    assert metadata["compressor.compact_params"] == str(report.compact.params)


def test_the_stored_recipe_is_the_one_that_ran(project: Path, finished: tuple[Path, Report]) -> None:
    assert load_recipe(finished[0] / "recipe.yaml") == load_recipe(project / "recipe.yaml")


def test_finished_stages_are_not_repeated(project: Path, run_dir: Path) -> None:
    before = contents(run_dir / "stages")
    report = compress(project / "recipe.yaml", run_dir, overrides=["accept.speedup=1000"])
    after = contents(run_dir / "stages")
    assert before.items() <= after.items()
    assert {name.split("-")[0] for name in after.keys() - before.keys()} == {"export"}
    assert [rule.name for rule in report.accept if not rule.passed] == ["speedup"]


def test_fresh_repeats_everything_and_ends_the_same(project: Path, run_dir: Path) -> None:
    before = weights(run_dir)
    (run_dir / "stages" / "old").mkdir()
    compress(project / "recipe.yaml", run_dir, fresh=True)
    assert not (run_dir / "stages" / "old").exists()
    assert weights(run_dir) == before


@pytest.mark.parametrize("again", ["plan", False], ids=["by name", "removed by hand"])
def test_what_follows_a_plan_that_comes_out_different_is_done_again(
    again: bool | str, project: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = {"stem": 4, "inner": 3, "outer": 5}
    monkeypatch.setattr(Budget, "widths", lambda *args: widths)
    for path in (run_dir / "stages").glob("plan-*") if not again else ():
        shutil.rmtree(path)
    begun = (run_dir / "log.txt").read_text()
    report = compress(project / "recipe.yaml", run_dir, fresh=again)
    log = (run_dir / "log.txt").read_text().removeprefix(begun)
    assert {group.name: group.kept for group in report.pruned_groups} == widths
    small = load_compact(run_dir, build(project))
    assert sum(parameter.numel() for parameter in small.parameters()) == report.compact.params
    assert re.findall(r"(\S+): done already", log) == ["export-dense", "evaluate-dense", "select"]
    assert re.findall(r"(\S+): begins", log) == ["plan", "shrink", "finetune", "export-compact", "benchmark"]


def test_a_plan_that_comes_out_the_same_is_followed_by_nothing(project: Path, run_dir: Path) -> None:
    before = contents(run_dir / "stages")
    for name in ("export-dense", "evaluate-dense", "select", "plan"):
        shutil.rmtree(next((run_dir / "stages").glob(f"{name}-*")))
    begun = (run_dir / "log.txt").read_text()
    compress(project / "recipe.yaml", run_dir)
    log = (run_dir / "log.txt").read_text().removeprefix(begun)
    assert re.findall(r"(\S+): begins", log) == ["export-dense", "evaluate-dense", "select", "plan"]
    assert contents(run_dir / "stages").keys() == before.keys()


def test_stages_of_former_names_are_passed_over_and_their_report_is_read(project: Path, run_dir: Path) -> None:
    """A version that named stages otherwise left whole directories, which mean nothing now."""
    for path in (run_dir / "stages").iterdir():
        path.rename(path.with_name(f"{path.name.rpartition('-')[0]}-0123456789ab"))
    assert check_run(run_dir).accepted
    assert load_compact(run_dir, build(project))
    report = compress(project / "recipe.yaml", run_dir)
    assert report.accepted and len(list((run_dir / "stages").glob("plan-*"))) == 2


def test_the_beginning_tells_how_long_the_stages_will_take(
    project: Path, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(project / "recipe.yaml", run_dir, fresh="export-compact", events=True)
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    seconds = next(event["seconds"] for event in events if event["event"] == "forecast")
    left = ["export-compact", "benchmark"]
    assert list(seconds) == ["export-dense", "evaluate-dense", "select", "plan", "shrink", "finetune", *left]
    assert [name for name, value in seconds.items() if value > 0] == left
    assert [event["event"] for event in events].index("forecast") < 3


def test_more_threads_than_cores_are_told_at_the_beginning_and_in_the_report(
    project: Path, run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (compressor.pipeline.checks, runtime):
        monkeypatch.setattr(module, "usable_cores", lambda: 0.5)
    report = compress(project / "recipe.yaml", run_dir, fresh="benchmark")
    assert "benchmark.threads: the container may use 0.5 of a core" in capsys.readouterr().err
    assert any("may use 0.5 of a core" in warning for warning in report.warnings)
    assert report.environment["usable_cores"] == 0.5


STEPS = (
    (quality, "evaluate"),
    (shrink, "refit"),
    (finetune, "finetune"),
    (export_compact, "check_parity"),
    (benchmark, "benchmark"),
    (compressor.pipeline.run, "publish"),
)


def test_a_run_that_is_interrupted_everywhere_ends_as_an_undisturbed_one(
    project: Path, finished: tuple[Path, Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    def interrupt_in_second_epoch(run: object, advance: object, stage: str) -> Callable[[Progress], None]:
        return lambda progress: interrupt() if progress.epoch == 2 else None

    faults = [(where, step, interrupt) for where, step in STEPS]
    faults.insert(1, (Budget, "widths", interrupt))
    faults.insert(4, (finetune, "teller", interrupt_in_second_epoch))
    for where, step, fault in faults:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(where, step, fault)
            compress(project / "recipe.yaml", tmp_path)
        assert not (tmp_path / "report.json").exists()
    compress(project / "recipe.yaml", tmp_path)
    assert weights(tmp_path) == weights(finished[0])


BAD = [
    ("model.checkpoint=missing.pth", "missing.pth"),
    ("model.builder=model.py:tinny", "tiny"),
    ("model.input=[3, 8, 8]", "model.input"),
    ("compress.method=magnitud", "did you mean 'magnitude'"),
    ("compress.options={speed: 3}", "compress.options"),
    ("compress.target.macs=0.0001", "compress.target.macs.*cannot be reached"),
    ("compress.keep=[ineer]", "compress.keep.*\n.*inner"),
    ("compress.keep=['*']", "no channel group can be cut"),
    ("finetune.schedule=cosin", "cosine"),
    ("export.dynamic_batch=false", "benchmark.batch_sizes"),
    ("data.source=nowhere", "data.source"),
    ("benchmark.threads=100000", "benchmark.threads.*100000 threads are too many"),
]


@pytest.mark.parametrize(("override", "message"), BAD, ids=[override for override, _ in BAD])
def test_bad_input_is_named_and_leaves_earlier_results(
    override: str, message: str, project: Path, run_dir: Path
) -> None:
    before = contents(run_dir)
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        compress(project / "recipe.yaml", run_dir, overrides=[override])
    assert caught.value.cure and str(project) in str(caught.value.where)
    assert contents(run_dir) == before


def test_a_directory_that_cannot_be_written_is_named(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        compress(project / "recipe.yaml", tmp_path / "file")


def test_without_epochs_the_pruned_network_is_exported(project: Path, tmp_path: Path) -> None:
    report = compress(project / "recipe.yaml", tmp_path, overrides=["finetune.epochs=0"])
    assert report.history == []
    assert report.pruned.accuracy == report.compact.accuracy


def test_two_processes_make_the_plan_of_one_and_are_as_accurate(project: Path, tmp_path: Path) -> None:
    overrides = ["compress.method=imitation", "benchmark.batch_sizes=[1]", "finetune.lr=0.02"]
    alone = compress(project / "recipe.yaml", tmp_path / "one", overrides=overrides)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["compressor", "run", str(project / "recipe.yaml"), "--out", str(tmp_path / "two"), "--json"]
    command += [part for override in overrides for part in ("--set", override)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    together = Report.model_validate_json(done.stdout)
    assert (tmp_path / "two" / "plan.json").read_bytes() == (tmp_path / "one" / "plan.json").read_bytes()
    assert together.pruned.accuracy == alone.pruned.accuracy
    assert together.compact.accuracy == pytest.approx(alone.compact.accuracy, abs=0.05)


def test_dead_units_are_counted_where_they_are_revived(project: Path, tmp_path: Path) -> None:
    report = compress(project / "recipe.yaml", tmp_path, overrides=["finetune.revive=0.2", "benchmark.batch_sizes=[1]"])
    kept = {layer: group.kept for group in report.pruned_groups for layer in group.layers}
    assert {entry.layer: entry.units for entry in report.activity} == {n: kept[n] for n in ("norm", "inner", "outer")}
    assert "nearly dead ones" in (tmp_path / "log.txt").read_text()


def test_the_embedding_of_a_transformer_is_cut_where_that_is_asked_for(project: Path, tmp_path: Path) -> None:
    """Products of activations count: the cost model of layers does not know them."""
    (tmp_path / "net.py").write_text(TRANSFORMER)
    recipe = RECIPE | {"model": {"builder": "net.py:build", "input": [1, 8, 8]}}
    recipe |= {"compress": {"method": "magnitude", "target": {"macs": 0.2}, "inexact": True, "multiple_of": 1}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    report = compress(tmp_path / "recipe.yaml", tmp_path / "run", overrides=["finetune.epochs=1"])
    assert 0.19 < report.compact.macs / report.dense.macs <= 0.202
    assert [group.kept < (group.size or 0) for group in report.groups if group.inexact] == [True]
    assert any(warning.startswith("inexact: ") for warning in report.warnings)
    with pytest.raises(InputError, match=r"compress.inexact(.|\n)*finetune.epochs"):
        compress(tmp_path / "recipe.yaml", tmp_path / "other", overrides=["finetune.epochs=0"])


def test_a_size_target_is_met_by_the_file(project: Path, tmp_path: Path) -> None:
    overrides = ["compress.target={size: 0.7}", "finetune.epochs=0", "benchmark.batch_sizes=[1]"]
    report = compress(project / "recipe.yaml", tmp_path, overrides=overrides)
    assert report.compact.onnx_bytes is not None and report.dense.onnx_bytes is not None
    assert report.compact.onnx_bytes <= 0.71 * report.dense.onnx_bytes


def test_a_fixed_batch_is_that_of_the_benchmark(project: Path, tmp_path: Path) -> None:
    overrides = ["export.dynamic_batch=false", "benchmark.batch_sizes=[4]", "finetune.epochs=0"]
    assert compress(project / "recipe.yaml", tmp_path, overrides=overrides).accepted
    session = onnxruntime.InferenceSession(tmp_path / "compact.onnx")
    assert session.get_inputs()[0].shape == [4, 1, 8, 8]


@pytest.fixture
def unlabelled(project: Path, tmp_path: Path) -> list[str]:
    """Return overrides for a folder of images without classes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (8, 8), np.uint8)).save(folder / f"{i}.png")
    return ["data.source=imagefolder", f"data.root={folder}", "benchmark.batch_sizes=[1]"]


def test_data_without_labels_gives_agreement(project: Path, unlabelled: list[str], tmp_path: Path) -> None:
    overrides = [*unlabelled, "finetune.epochs=0", "accept.accuracy_drop=1"]
    report = compress(project / "recipe.yaml", tmp_path / "run", overrides=overrides)
    assert report.dense.accuracy is None
    assert report.dense.agreement == 1
    assert report.compact.agreement is not None
    assert [rule.name for rule in report.accept if not rule.passed] == ["accuracy_drop"]


def test_by_default_a_file_must_not_be_slower_nor_without_labels_be_judged_by_them(
    project: Path, unlabelled: list[str], tmp_path: Path
) -> None:
    report = compress(project / "recipe.yaml", tmp_path / "run", [*unlabelled, "finetune.epochs=0", "accept={}"])
    assert [rule.name for rule in report.accept] == ["target", "speedup", "parity"]
    assert check_run(tmp_path / "run").accept == report.accept
    assert "same top-1 as dense" in (tmp_path / "run" / "summary.md").read_text().partition("| Rule")[0]
    labelled = compress(project / "recipe.yaml", tmp_path / "other", ["finetune.epochs=0", "accept={}"])
    assert [(rule.name, rule.required) for rule in labelled.accept[1:3]] == [("accuracy_drop", 0.02), ("speedup", 1.0)]


ENDLESS = """
import torch
from torch.utils.data import DataLoader, IterableDataset

class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(1, 8, 8), 0

def data():
    return DataLoader(Endless(), 4), DataLoader(Endless(), 4)
"""


def test_training_images_without_a_length_are_refused_before_any_work(project: Path, tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    overrides = [f"data.source={tmp_path / 'endless.py'}:data", "data.augment=true"]
    with pytest.raises(InputError, match="has no length"):
        compress(project / "recipe.yaml", tmp_path / "run", overrides=overrides)
    assert not list((tmp_path / "run" / "stages").iterdir())


def test_finetuning_without_labels_is_refused_before_any_work(
    project: Path, unlabelled: list[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="finetune.epochs: 0"):
        compress(project / "recipe.yaml", tmp_path / "run", overrides=unlabelled)
    assert not list((tmp_path / "run" / "stages").iterdir())


def test_check_judges_by_other_rules_and_measures_nothing(run_dir: Path) -> None:
    before = contents(run_dir)
    strict = check_run(run_dir, ["accept.speedup=1000"])
    assert not strict.accepted
    assert Report.load(run_dir / "report.json") == strict
    assert "Not accepted" in (run_dir / "report.html").read_text()
    changed = {name for name, value in contents(run_dir).items() if before[name] != value}
    assert changed == {"report.json", "report.html", "summary.md", "junit.xml"}
    assert check_run(run_dir).accepted
    assert contents(run_dir)["report.html"] == before["report.html"]


def test_a_run_directory_of_an_earlier_version_is_judged_as_it_was(run_dir: Path) -> None:
    report = json.loads((run_dir / "report.json").read_text())
    del report["finetune"]
    (run_dir / "report.json").write_text(json.dumps(report))
    checked = check_run(run_dir)
    assert checked.finetune is None and checked.accepted
    assert [rule.name for rule in checked.accept] == ["target", "parity"]


@pytest.mark.parametrize("override", ["compress.method=random", "accept.speed=2", "accept.speedup=fast"])
def test_check_refuses_what_it_cannot_judge(override: str, run_dir: Path) -> None:
    before = contents(run_dir)
    with pytest.raises(InputError):
        check_run(run_dir, [override])
    assert contents(run_dir) == before


def test_check_refuses_a_directory_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no readable report"):
        check_run(tmp_path)


def test_an_inspection_names_what_can_be_cut(project: Path) -> None:
    inspection = inspect_recipe(load_recipe(project / "recipe.yaml", ["compress.multiple_of=1"]))
    model = build(project)
    assert {group.name: group.size for group in inspection.groups} == {"stem": 8, "inner": 16, "outer": 8}
    assert inspection.params == sum(parameter.numel() for parameter in model.parameters())
    assert 0 < inspection.smallest["macs"] < 0.1
    assert all(0 < group.macs < 1 for group in inspection.groups)
    assert json.loads(json.dumps(inspection.to_dict()))["macs"] == inspection.macs
