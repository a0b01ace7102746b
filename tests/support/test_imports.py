from pathlib import Path
from typing import Any

import pytest

from compressor.errors import InputError
from compressor.support.imports import call_named

SOURCE = """
import sibling
value = 3
def build(width=4, *, depth=sibling.DEPTH):
    return width * depth
def fails(width):
    raise ValueError("width is odd")
def leaves():
    raise SystemExit(0)
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(SOURCE)
    (tmp_path / "sibling.py").write_text("DEPTH = 2")
    (tmp_path / "broken.py").write_text("def f(:")
    (tmp_path / "needy.py").write_text("import no_such_dependency")
    return tmp_path


def call(base: Path, spec: str, **args: Any) -> Any:
    return call_named(spec, args, where="model.builder", where_args="model.args", base=base)


def test_a_file_is_relative_to_the_recipe_and_may_import_its_siblings(base: Path) -> None:
    assert call(base, "net.py:build", width=5) == 10


def test_a_module_is_imported() -> None:
    assert call(Path(), "fractions:Fraction", numerator=1, denominator=2) == 0.5


@pytest.mark.parametrize(
    ("spec", "args", "where", "words"),
    [
        ("nowhere.py:build", {}, "model.builder", ["there is no file", "nowhere.py"]),
        ("no_such_module:build", {}, "model.builder", ["no module 'no_such_module'", "install it"]),
        ("os.no_such:build", {}, "model.builder", ["no module 'os.no_such'"]),
        ("needy.py:build", {}, "model.builder", ["No module named 'no_such_dependency'"]),
        ("broken.py:f", {}, "model.builder", ["broken.py", "SyntaxError"]),
        ("net.py:biuld", {}, "model.builder", ["no 'biuld'", "did you mean build"]),
        ("net.py:value", {}, "model.builder", ["is a int, not a callable"]),
        ("net.py:build", {"widht": 3}, "model.args", ["widht", "(width=4, *, depth=2)"]),
        ("net.py:fails", {"width": 3}, "model.builder", ["fails(width=3) raised ValueError: width is odd"]),
        ("net.py:leaves", {}, "model.builder", ["SystemExit"]),
    ],
)
def test_each_fault_names_the_field_and_the_cure(
    base: Path, spec: str, args: dict[str, Any], where: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        call(base, spec, **args)
    assert caught.value.where == where
    assert caught.value.cure
    assert all(word in str(caught.value) for word in words), str(caught.value)
