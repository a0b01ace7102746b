from pathlib import Path

import pytest

from compressor.data import load_data
from compressor.errors import InputError
from compressor.pipeline import demo
from compressor.recipe import Recipe, load_recipe
from compressor.support.progress import Journal
from compressor.tasks import evaluate


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "recipe.yaml").write_text(demo.recipe_text("recipe.yaml", "digits.pth"))
    (tmp_path / "digits.pth").touch()
    return load_recipe(tmp_path / "recipe.yaml")


def test_training_is_the_same_every_time_and_learns(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(demo.TRAINING, "epochs", 2)
    first, second = (demo.train(recipe, Journal(tmp_path / "log.txt")) for _ in range(2))
    assert all(a.equal(b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    validation = load_data(recipe.data, recipe.model.input, 0).validation
    assert validation is not None
    assert evaluate(first, validation).main > 0.5


def test_the_sample_is_the_recipe_of_the_demonstration() -> None:
    sample = Path(__file__).parents[2] / "samples/digits/recipe.yaml"
    command = "samples/digits/recipe.yaml --out runs/digits"
    assert sample.read_text(encoding="utf-8") == demo.recipe_text(command, "../../runs/demo/digits.pth")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        demo.run_demo(tmp_path / "file" / "out")
