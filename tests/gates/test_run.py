"""Gates in a run: the same recipe, stages, resume and report as with any method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from compressor.errors import InputError
from compressor.pipeline import compress
from compressor.pipeline.stages import learn_gates
from compressor.report import Report
from compressor.support.files import sha256
from compressor.training.history import Progress
from tests.gates.conftest import SHAPE, Digits

RECIPE = {
    "model": {"builder": "compressor.models.digits:digits_resnet", "args": {"width": 8}, "input": list(SHAPE)},
    "data": {"source": "digits", "batch_size": 64},
    "compress": {"method": "dep_l0", "epochs": 2, "target": {"macs": 0.5}, "calibration": {"images": 128}},
    "finetune": {"epochs": 1},
    "benchmark": {"seconds": 0.05},
    "accept": {"speedup": None, "accuracy_drop": None},
}


@pytest.fixture(scope="module")
def recipe(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gates")
    torch.save(digits.model.state_dict(), folder / "digits.pth")
    model = RECIPE["model"] | {"checkpoint": "digits.pth"}  # type: ignore[operator]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"model": model}))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def finished(recipe: Path) -> tuple[Path, Report]:
    """The directory and the report of a finished run, to be looked at only."""
    return recipe.parent / "run", compress(recipe, recipe.parent / "run")


def test_the_target_is_met_within_one_percent(finished: tuple[Path, Report]) -> None:
    report = finished[1]
    assert 0.49 * report.dense.macs <= report.compact.macs <= 0.5 * report.dense.macs
    assert report.accepted


def test_the_report_tells_how_the_gates_moved(finished: tuple[Path, Report]) -> None:
    directory, report = finished
    kept = {group.name: group.kept for group in report.pruned_groups}
    assert [entry.epoch for entry in report.gates] == [1, 2]
    assert report.gates[-1].thresholded == kept
    assert "gates" in report.seconds
    assert "How the gates moved" in (directory / "report.html").read_text()


def test_an_interrupted_run_ends_as_an_undisturbed_one(
    recipe: Path, finished: tuple[Path, Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt_in_second_epoch(run: object, advance: object, stage: str) -> Callable[[Progress], None]:
        def tell(now: Progress) -> None:
            if now.epoch == 2:
                raise KeyboardInterrupt

        return tell

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(learn_gates, "teller", interrupt_in_second_epoch)
        compress(recipe, tmp_path)
    compress(recipe, tmp_path)
    for name in ("plan.json", "compact.safetensors"):
        assert sha256(tmp_path / name) == sha256(finished[0] / name)


def test_gates_can_start_from_a_ranking_and_keep_what_they_trained(recipe: Path, tmp_path: Path) -> None:
    report = compress(recipe, tmp_path, ["compress.options={init: magnitude}", "compress.refit=false"])
    assert report.accepted
    assert {"select", "gates"} <= report.seconds.keys()


BAD = [
    ("compress.method=dep_lo", "did you mean 'dep_l0'"),
    ("compress.options={inti: imitation}", "(?s)compress.options.inti.*init"),
    ("compress.options={init: imitaton}", "(?s)compress.options.init.*did you mean 'imitation'"),
    ("compress.epochs=0", "compress.epochs"),
    ("compress.method=magnitude", "(?s)compress.epochs.*trains nothing"),
]


@pytest.mark.parametrize(("override", "message"), BAD)
def test_a_faulty_recipe_is_named(override: str, message: str, recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        compress(recipe, tmp_path, [override])
