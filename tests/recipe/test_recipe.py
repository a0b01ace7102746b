"""Recipes: what is read, what is refused and in which words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.errors import InputError
from compressor.recipe import Recipe, dump_recipe, load_recipe
from compressor.recipe.strict_yaml import dump, parse

GOOD = """
model: {builder: "torchvision.models:resnet18", input: [3, 64, 64]}
data: {source: imagefolder}
compress: {target: {macs: 0.5}}
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def message_of(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def test_defaults_are_filled_in(write: Write) -> None:
    recipe = load_recipe(write(GOOD))
    assert recipe.compress.method == "imitation"
    assert recipe.benchmark.batch_sizes == (1,)
    assert (recipe.accept.speedup, recipe.accept.accuracy_drop, recipe.accept.size_mb) == (1.0, 0.02, None)
    assert recipe.finetune.lr is None


def test_a_rule_is_switched_off_by_null(write: Write) -> None:
    accept = load_recipe(write(GOOD + "accept: {speedup: null}\n")).accept
    assert (accept.speedup, accept.accuracy_drop) == (None, 0.02)


def test_a_dumped_recipe_loads_to_an_equal_one(write: Write) -> None:
    text = GOOD + "finetune: {lr: 1e-3}\naccept: {speedup: 1.8}\n"
    recipe = load_recipe(write(text), ['model.args={name: "1e-4", rate: 1e-4, day: 2024-01-02}', "compress.keep=[a.*]"])
    assert load_recipe(write(dump_recipe(recipe))) == recipe


def test_a_dumped_recipe_shows_every_default(write: Write) -> None:
    dumped = yaml.safe_load(dump_recipe(load_recipe(write(GOOD))))
    assert set(dumped) == set(Recipe.model_fields)
    assert dumped["finetune"]["epochs"] == 10


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "+1.e-4", ".1e-3", "1.0e-4"])
def test_exponents_are_numbers(write: Write, number: str) -> None:
    assert load_recipe(write(GOOD + f"finetune: {{lr: {number}}}")).finetune.lr == pytest.approx(1e-4)


def test_paths_are_relative_to_the_recipe(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(GOOD)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = load_recipe(
        path,
        [
            *("data.root=images", "model.checkpoint=../a.pth", "model.builder=net.py:build", "data.source=d.py:load"),
            "compress.method=m.py:Mine",
        ],
    )
    assert recipe.data.root == tmp_path / "images"
    assert recipe.model.checkpoint == tmp_path.parent / "a.pth"
    assert recipe.model.builder == f"{tmp_path / 'net.py'}:build"
    assert recipe.data.source == f"{tmp_path / 'd.py'}:load"
    assert recipe.compress.method == f"{tmp_path / 'm.py'}:Mine"


def test_overrides_are_yaml_and_create_sections(write: Write) -> None:
    overrides = ["finetune.epochs=3", "benchmark.batch_sizes=[1, 8]", "compress.target={params: 0.25}", "seed=7"]
    recipe = load_recipe(write(GOOD), overrides)
    assert recipe.finetune.epochs == 3
    assert recipe.benchmark.batch_sizes == (1, 8)
    assert recipe.compress.target.macs is None
    assert recipe.compress.target.params == 0.25
    assert recipe.seed == 7


def test_method_options_are_free(write: Write) -> None:
    assert load_recipe(write(GOOD), ["compress.options.anything=1"]).compress.options == {"anything": 1}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("foo", "override 'foo': expected key.path=value"),
        ("=3", "override '=3': expected key.path=value"),
        ("data.source.x=1", "'source' holds a value, not keys"),
        ("seed=[", "override 'seed=[': the value is not valid YAML"),
        ("model.args={a: 1, a: 2}", "key 'a' appears twice"),
        (
            "compress.target.params=0.5",
            "expected exactly one of latency_ms, loss, macs, params, size, speedup; got macs: 0.5, params: 0.5",
        ),
        (
            "compress.target={}",
            "compress.target: expected exactly one of latency_ms, loss, macs, params, size, speedup; got none",
        ),
        ("compress.target={macs: {a: 1}}", "compress.target.macs: expected a valid number, got keys and values"),
        ("compress.target={macs: 0}", "compress.target.macs: expected greater than 0, got 0"),
        (
            "compress.target={flops: 2}",
            "the keys of compress.target are: latency_ms, loss, macs, params, size, speedup",
        ),
        ("finetune.epoch=3", "finetune.epoch: unknown key; did you mean 'epochs'?"),
        ("momentum=0.5", "momentum: unknown key; did you mean 'finetune.momentum'?"),
        ("finetune.epochs='3'", "finetune.epochs: expected a valid integer, got '3'"),
        ("finetune.epochs=true", "finetune.epochs: expected a valid integer, got True"),
        ("finetune.lr=.inf", "finetune.lr: expected a finite number, got inf"),
        ("finetune=", "finetune: expected keys and values, got nothing"),
        ("benchmark.provider=gpu", "benchmark.provider: expected 'cpu'"),
        ("benchmark.provider={a: 1}", "benchmark.provider: expected 'cpu'"),
        ("benchmark.batch_sizes=[0]", "benchmark.batch_sizes[0]: expected greater than or equal to 1, got 0"),
        ("benchmark.batch_sizes=[]", "benchmark.batch_sizes: expected at least one number"),
        ("compress.keep=fc", "compress.keep: expected a list, got 'fc'"),
        ("data.root=3", "data.root: expected a path, got 3"),
        ("data.normalize={mean: [1, 2], std: [1]}", "expected as many values in mean as in std, got 2 and 1"),
        ("data.normalize={mean: [1], std: [0]}", "data.normalize.std[0]: expected greater than 0, got 0"),
        ("data.source=a b", "data.source: expected imagefolder, torchvision:<Dataset>, digits, or module:callable"),
        (
            "model.builder=resnet18",
            "model.builder: expected module:callable or path/to/file.py:callable, got 'resnet18'",
        ),
        ("model.builder=net.py", "model.builder: expected module:callable or path/to/file.py:callable, got 'net.py'"),
        (
            "compress.method=m.py:1",
            "compress.method: expected module:callable or path/to/file.py:callable, got 'm.py:1'",
        ),
        ("model.args={1: 2}", "expected a valid string, got 1"),
        ("seed=-1", "seed: expected greater than or equal to 0, got -1"),
    ],
)
def test_a_fault_names_key_expectation_and_value(write: Write, override: str, words: str) -> None:
    message = message_of(write(GOOD), override)
    assert words in message
    assert "1 fault in the recipe" in message
    assert "recipe.yaml" in message
    assert "cure:" in message


def test_all_faults_are_reported_at_once(write: Write) -> None:
    text = (
        "model: {builder: x, inputs: [3]}\ncompres: {}\ndata: {source: digits}\ndata: {source: digits, batch_size: 0}\n"
    )
    message = message_of(write(text), "finetune.epochs=-1", "oops")
    for words in (
        "key 'data' appears twice (line 4)",
        "override 'oops'",
        "model.builder: expected",
        "model.input: is required but missing",
        "did you mean 'input'?",
        "data.batch_size: expected",
        "did you mean 'compress'?",
        "compress: is required but missing",
        "finetune.epochs: expected",
        "9 faults",
    ):
        assert words in message


def test_a_flood_of_faults_is_cut_short(write: Write) -> None:
    message = message_of(write(GOOD + "".join(f"key{i}: 1\n" for i in range(1000))))
    assert "1000 faults" in message
    assert "… and 980 more" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got nothing"),
        ("just text", "got str"),
        ("- a\n- b", "got list"),
        ("a: [", "is not valid YAML: expected the node content, but found '<stream end>' (line 1)"),
        ("a: 1\n b: 2", "(line 2)"),
        ("--- {}\n--- {}", "another document"),
        ("a: &x [1]\nb: [*x, *x]", "aliases (*name) are not allowed (line 2)"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: !!binary aGk=", "could not determine a constructor"),
        ("[" * 5000, "nested too deeply"),
        ("seed: " + "9" * 5000, "is not valid YAML"),
        ("seed: 0xffffffffffffffffff", "beyond 64 bits"),
        ('a: "\\0"', "forbidden character"),
        ('a: "\\ud800"', "forbidden character"),
        ("{[1]: 2}", "unhashable key"),
        ("x: 1\n" * 30_000, "larger than"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_not_a_recipe_is_refused(write: Write, text: str, words: str) -> None:
    message = message_of(write(text))
    assert words in message
    assert "cure:" in message


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none.yaml'}: there is no such recipe" in message_of(tmp_path / "none.yaml")


def test_a_directory_is_not_a_recipe(tmp_path: Path) -> None:
    assert "cannot be read" in message_of(tmp_path)


def test_bytes_are_not_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in message_of(tmp_path / "r.yaml")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab1e-:~ ", max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(PLAIN)
@settings(max_examples=200, deadline=None)
def test_plain_yaml_reads_what_it_writes(data: object) -> None:
    assert parse(dump(data)) == (data, [])


@given(st.text("abmodel:{}[]-,#&*!|>'\"% \n\t0.1e", max_size=60))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_ends_in_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        load_recipe(path)


@pytest.mark.parametrize("sample", sorted(Path(__file__).parents[2].glob("samples/**/*recipe*.yaml")), ids=str)
def test_samples_load_and_open_with_their_command(sample: Path) -> None:
    load_recipe(sample)
    name = sample.relative_to(Path(__file__).parents[2]).as_posix()
    header = sample.read_text(encoding="utf-8").partition("\nmodel:")[0]
    assert f"compressor run {name}" in header
