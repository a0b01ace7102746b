from __future__ import annotations

from pathlib import Path

import pytest

import compressor.pipeline.store as stages_module
from compressor.errors import InputError
from compressor.pipeline.store import Rehearsal, Stages
from compressor.recipe.fresh import STAGES, join
from compressor.support.files import write_atomically


def write(text: str):  # type: ignore[no-untyped-def]
    return lambda directory: (directory / "result.txt").write_text(text)


def forbidden(directory: Path) -> None:
    raise AssertionError("a finished stage was done again")


def test_a_finished_stage_is_not_repeated(tmp_path: Path) -> None:
    with Stages(tmp_path) as stages:
        first = stages.run("plan", {"seed": 0}, write("one"))
    with Stages(tmp_path) as stages:
        assert stages.run("plan", {"seed": 0}, forbidden) == first
        assert stages.seconds.keys() == {"plan"}
    assert (first / "result.txt").read_text() == "one"


def test_a_stage_depends_on_everything_that_it_names(tmp_path: Path) -> None:
    with Stages(tmp_path) as stages:
        one = stages.run("plan", {"seed": 0, "parts": [1, 2]}, write("one"))
        two = stages.run("plan", {"seed": 0, "parts": [2, 1]}, write("two"))
        same = stages.run("plan", {"parts": [1, 2], "seed": 0}, forbidden)
    assert one != two
    assert same == one


def test_an_interrupted_stage_is_begun_again(tmp_path: Path) -> None:
    def interrupted(directory: Path) -> None:
        (directory / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with Stages(tmp_path) as stages, pytest.raises(KeyboardInterrupt):
        stages.run("plan", {}, interrupted)
    with Stages(tmp_path) as stages:
        done = stages.run("plan", {}, write("whole"))
    assert {path.name for path in done.iterdir()} == {"result.txt", "stage.json"}


def test_what_is_unfinished_survives_an_interruption_and_goes_when_the_stage_is_done(tmp_path: Path) -> None:
    def interrupted(directory: Path) -> None:
        (directory / "half.txt").write_text("half")
        (directory / "unfinished").mkdir()
        (directory / "unfinished" / "epoch.txt").write_text("1")
        raise KeyboardInterrupt

    def goes_on(directory: Path) -> None:
        assert not (directory / "half.txt").exists()
        (directory / "result.txt").write_text((directory / "unfinished" / "epoch.txt").read_text())

    with Stages(tmp_path) as stages, pytest.raises(KeyboardInterrupt):
        stages.run("finetune", {}, interrupted)
    with Stages(tmp_path) as stages:
        done = stages.run("finetune", {}, goes_on)
    assert (done / "result.txt").read_text() == "1"
    assert {path.name for path in done.iterdir()} == {"result.txt", "stage.json"}


def test_a_stage_killed_before_it_got_its_name_is_not_repeated(tmp_path: Path) -> None:
    with Stages(tmp_path) as stages:
        done = stages.run("plan", {}, write("one"))
        (done / "unfinished").mkdir()
        done.rename(done.with_name(f"{done.name}.partial"))
        assert stages.run("plan", {}, forbidden) == done
    assert {path.name for path in done.iterdir()} == {"result.txt", "stage.json"}


def test_the_directory_of_another_version_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for version in ("0.0.9", "0.1.0", "0.1.0"):
        monkeypatch.setattr(stages_module, "__version__", version)
        with Stages(tmp_path, say=lambda text, **values: said.append(text)):
            pass
    assert said == [f"{tmp_path} was written by compressor 0.0.9; 0.1.0 recomputes every stage"]


@pytest.mark.parametrize("file", ["result.txt", "stage.json"])
@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda path: path.write_bytes(b"\xff"), lambda path: path.write_text(path.read_text()[:-20] + "}")],
    ids=["removed", "overwritten", "shortened"],
)
def test_a_damaged_stage_is_done_again(tmp_path: Path, file: str, damage) -> None:  # type: ignore[no-untyped-def]
    with Stages(tmp_path) as stages:
        damage(stages.run("plan", {}, write("one")) / file)
        assert (stages.run("plan", {}, write("two")) / "result.txt").read_text() == "two"


def test_a_note_of_the_version_that_is_no_text_is_another_version(tmp_path: Path) -> None:
    (tmp_path / ".version").write_bytes(b"\xff")
    with Stages(tmp_path) as stages:
        stages.run("plan", {}, write("one"))


def test_fresh_forgets_finished_stages(tmp_path: Path) -> None:
    with Stages(tmp_path) as stages:
        stages.run("plan", {}, write("one"))
    with Stages(tmp_path, fresh=True) as stages:
        assert (stages.run("plan", {}, write("two")) / "result.txt").read_text() == "two"


def test_a_stage_depends_on_what_the_files_of_an_earlier_one_hold(tmp_path: Path) -> None:
    with Stages(tmp_path) as stages:
        plan = stages.run("plan", {"seed": 0}, write("narrow"))
        first = stages.run("shrink", {"plan": plan / "result.txt"}, write("one"))
    with Stages(tmp_path, fresh="plan") as stages:
        assert stages.run("plan", {"seed": 0}, write("wide")) == plan
        assert stages.run("shrink", {"plan": plan / "result.txt"}, write("two")) != first
    with Stages(tmp_path) as stages:
        plan = stages.run("plan", {"seed": 1}, write("wide"))
        stages.run("shrink", {"plan": plan / "result.txt"}, forbidden)


@pytest.mark.parametrize(
    ("fresh", "kept"),
    [
        (False, set(STAGES)),
        ("benchmark", set(STAGES) - {"benchmark"}),
        ("plan", {"export-dense", "evaluate-dense", "select", "profile", "gates"}),
        ("select", {"export-dense", "evaluate-dense", "profile"}),
        ("export-dense", {"evaluate-dense"}),
        (True, set()),
    ],
)
def test_a_named_stage_is_forgotten_with_those_that_may_need_it(
    tmp_path: Path, fresh: bool | str, kept: set[str]
) -> None:
    for name in STAGES:
        (tmp_path / "stages" / f"{name}-0123456789ab").mkdir(parents=True)
        (tmp_path / "stages" / f"{name}-ba9876543210.partial").mkdir()
    with Stages(tmp_path, fresh=fresh):
        left = [path.name for path in (tmp_path / "stages").iterdir()]
    assert {name.removesuffix(".partial")[:-13] for name in left} == kept
    assert len(left) == 2 * len(kept)


def test_an_unknown_stage_is_refused_before_anything_is_forgotten(tmp_path: Path) -> None:
    with Stages(tmp_path) as stages:
        stages.run("plan", {}, write("one"))
    with pytest.raises(InputError, match="'plam' is not known(.|\n)*did you mean 'plan'"):
        Stages(tmp_path, fresh="plam")
    with Stages(tmp_path) as stages:
        stages.run("plan", {}, forbidden)


@pytest.mark.parametrize(
    ("given", "joined"),
    [
        (["a.yaml", "--fresh"], ["a.yaml", "--fresh="]),
        (["--fresh", "a.yaml"], ["--fresh=", "a.yaml"]),
        (["--fresh", "plan", "a.yaml"], ["--fresh=plan", "a.yaml"]),
        (["a.yaml", "--fresh", "plan", "--json"], ["a.yaml", "--fresh=plan", "--json"]),
        (["--fresh", "--json", "a.yaml"], ["--fresh=", "--json", "a.yaml"]),
        (["a.yaml", "--fresh", "plam"], ["a.yaml", "--fresh=plam"]),
        (["a.yaml", "--fresh=plan"], ["a.yaml", "--fresh=plan"]),
        (["--", "--fresh", "plan"], ["--", "--fresh", "plan"]),
    ],
)
def test_the_option_takes_the_name_of_a_stage_or_nothing(given: list[str], joined: list[str]) -> None:
    assert join(given) == joined


def test_a_rehearsal_tells_what_is_missing_and_does_nothing(tmp_path: Path) -> None:
    with Stages(tmp_path) as stages:
        plan = stages.run("plan", {"seed": 0}, write("one"))
        rehearsal = Rehearsal(stages)
        assert rehearsal.run("plan", {"seed": 0}, forbidden) == plan
        shrunk = rehearsal.run("shrink", {"plan": plan / "result.txt"}, forbidden)
        rehearsal.run("benchmark", {"pruned": shrunk / "result.txt"}, forbidden)
    assert rehearsal.missing == {"plan": False, "shrink": True, "benchmark": True}
    assert list((tmp_path / "stages").iterdir()) == [plan]


def test_a_second_run_on_one_directory_is_refused(tmp_path: Path) -> None:
    with Stages(tmp_path), pytest.raises(InputError, match="another run"), Stages(tmp_path, fresh=True):
        pass
    with Stages(tmp_path):
        pass


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="file.*\n.*--out"), Stages(file / "run"):
        pass


def test_an_atomic_write_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", b"old")
    write_atomically(tmp_path / "a.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"new"
