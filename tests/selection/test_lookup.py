"""Methods from outside of the package: classes of files, of modules, and of installed packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import InputError
from compressor.pipeline.methods import make_method
from compressor.recipe import CompressSection
from compressor.selection.lookup import find_method, list_methods
from compressor.selection.methods.magnitude import Magnitude
from compressor.support import plugins

METHOD = """
from __future__ import annotations

from dataclasses import dataclass

import torch

from compressor.selection.base import Calibration, Method, Ranking, Scored


@dataclass
class First(Scored):
    name, summary, paper = "first", "keeps the first units", "nowhere"
    power: float = 1.0
    free = None

    def scores(self, group, model):
        return torch.arange(group.size, 0, -1.0) ** self.power


class Nameless(First):
    name = "nameless"

class Abstract(Method):
    name = "abstract"

class Needy(First):
    def __init__(self, strength):
        self.strength = strength

class Failing(First):
    def __init__(self, plain=1, odd: "Nothing" = 2):
        raise ValueError("no good")

class Untyped(First):
    def __init__(self, plain=1):
        self.plain = plain

def function():
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(METHOD)
    return tmp_path


def section(method: str, **options: object) -> CompressSection:
    return CompressSection.model_validate({"method": method, "options": options, "target": {"macs": 0.5}})


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entries: str) -> None:
    """Put the metadata of a package beside `mine.py`, and both on the path."""
    (folder / "theirs-1.0.dist-info").mkdir()
    (folder / "theirs-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (folder / "theirs-1.0.dist-info/entry_points.txt").write_text(f"[compressor.methods]\n{entries}\n")
    monkeypatch.syspath_prepend(folder)


def test_a_class_of_a_file_takes_its_options(folder: Path) -> None:
    method = make_method(section("mine.py:First", power=2), folder)
    assert (method.name, vars(method)) == ("first", {"power": 2.0})
    assert vars(make_method(section("mine.py:Untyped", plain="text"), folder)) == {"plain": "text"}


def test_a_class_of_a_module_is_found(folder: Path) -> None:
    kind = find_method("compressor.selection.methods.magnitude:Magnitude", where="compress.method")
    assert kind is Magnitude


@pytest.mark.parametrize(
    ("method", "options", "where", "words"),
    [
        ("none.py:First", {}, "compress.method", ["there is no file", "none.py", "relative to the recipe"]),
        ("no_such_module:First", {}, "compress.method", ["there is no module 'no_such_module'"]),
        ("mine.py:Frist", {}, "compress.method", ["has no 'Frist'", "did you mean First"]),
        (
            "mine.py:function",
            {},
            "compress.method",
            ["is not a subclass of Method", "compressor.selection.base.Method"],
        ),
        ("pathlib:Path", {}, "compress.method", ["is not a subclass of Method"]),
        ("mine.py:Abstract", {}, "compress.method", ["lacks rank, summary, paper"]),
        ("mine.py:Needy", {}, "compress.method", ["cannot be made without strength", "default"]),
        ("mine.py:Failing", {}, "compress.options", ["raised ValueError: no good"]),
        ("mine.py:Failing", {"odd": 1}, "compress.options", ["Nothing", "import the type"]),
        ("mine.py:First", {"power": "much"}, "compress.options.power", ["valid number"]),
        ("mine.py:First", {"pover": 1}, "compress.options.pover", ["the options are: power"]),
        ("frist", {}, "compress.method", ["'frist' is not known", "imitation", "dep_l0"]),
    ],
)
def test_each_fault_names_field_and_cure(
    folder: Path, method: str, options: dict[str, object], where: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        make_method(section(method, **options), folder)
    assert caught.value.where == where
    assert caught.value.cure
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_installed_package_offers_a_method_by_its_entry_point(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder, monkeypatch, "theirs = mine:First")
    assert make_method(section("theirs")).name == "first"
    methods, problems = list_methods()
    assert methods["theirs"].summary == "keeps the first units"
    assert not problems


def test_entry_points_that_cannot_be_used_are_told_and_hide_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder, monkeypatch, "gone = no_such_module:First\nhalf = mine:Abstract\nmagnitude = mine:First")
    methods, problems = list_methods()
    assert methods["magnitude"] is Magnitude
    assert make_method(section("magnitude")).name == "magnitude"
    told = "\n".join(map(str, problems))
    assert "entry point gone: 'gone' of the package theirs cannot be imported (ModuleNotFoundError" in told
    assert "'mine:Abstract' lacks rank" in told
    assert "entry point magnitude: the name belongs to a method of compressor" in told
    with pytest.raises(InputError, match="compress.method: 'gone' of the package theirs cannot be imported"):
        make_method(section("gone"))


def test_the_code_of_others_is_hashed_and_that_of_this_package_is_not(folder: Path) -> None:
    first = plugins.code_of(find_method("mine.py:First", where="", folder=folder))
    (folder / "mine.py").write_text(METHOD + "\n# changed\n")
    second = plugins.code_of(find_method("mine.py:First", where="", folder=folder))
    assert first and second and first != second
    assert plugins.code_of(Magnitude) is None
