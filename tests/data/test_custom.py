from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.data import calibration_batches, load_data, other_batches
from compressor.errors import InputError
from compressor.recipe import DataSection

SOURCE = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def dataset(count):
    return TensorDataset(torch.arange(count * 2.0).view(count, 2), torch.arange(count) % 3)

def pair(count=10, root=None):
    return DataLoader(dataset(count), 4, shuffle=True), DataLoader(dataset(4), 2)

def batches(count=3):
    return {"train": [(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))] * count, "validation": [], "classes": ["a"]}

def two_inputs():
    both = TensorDataset(torch.ones(6, 2), torch.zeros(6, 3), torch.arange(6))
    return DataLoader(both, 2), DataLoader(both, 2)

def unlabelled():
    return {"calibration": list(torch.eye(5))}

def number():
    return 3
def half():
    return {"train": []}
def misspelt():
    return {"trian": []}
def no_loader():
    return 1, 2
def single():
    return {"calibration": DataLoader(TensorDataset(torch.eye(5)[:, :2]), 2)}
def mappings():
    return [{"x": torch.ones(4, 2), "y": torch.zeros(4)}] * 2, [{"x": torch.ones(4, 2)}]
def wide():
    return [(torch.ones(4, 3), torch.zeros(4))] * 2, [(torch.ones(4, 3), torch.zeros(4))]
def records():
    return {"calibration": [{"x": torch.zeros(2)}]}
def ragged():
    return {"calibration": [torch.zeros(2), torch.zeros(3)]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def load(file: Path, name: str, **options: Any) -> Any:
    return load_data(DataSection(source=f"{file}:{name}", **options), (2,), 0)


def test_a_pair_of_loaders(file: Path) -> None:
    data = load(file, "pair", args={"count": 7}, root=Path("/data"))
    assert data.labelled
    assert [len(x) for x, _ in data.train] == [4, 3]


def test_calibration_takes_items_of_the_training_set(file: Path) -> None:
    inputs, labels = calibration_batches(load(file, "pair"), 6, 4, seed=0)
    assert [len(batch[0]) for batch in inputs] == [4, 2]
    assert labels is not None
    assert all(
        y == (x[0] / 2) % 3 for batch, ys in zip(inputs, labels, strict=True) for x, y in zip(batch[0], ys, strict=True)
    )


def test_others_are_those_that_the_calibration_did_not_take(file: Path) -> None:
    data = load(file, "pair", args={"count": 10})
    taken = {float(x[0]) for (batch,) in calibration_batches(data, 6, 4, seed=0)[0] for x in batch}
    others = {float(x[0]) for (batch,) in other_batches(data, 6, 4, seed=0) for x in batch}
    assert (len(taken), len(others), taken & others) == (6, 4, set())
    assert other_batches(data, 10, 4, seed=0) == []


def test_calibration_takes_samples_of_any_iterable_of_batches(file: Path) -> None:
    inputs, labels = calibration_batches(load(file, "batches"), 6, 4, seed=0)
    assert [batch[0].shape for batch in inputs] == [(4, 2), (2, 2)]
    assert labels is not None and [len(y) for y in labels] == [4, 2]


def test_networks_with_two_inputs_get_both(file: Path) -> None:
    inputs, labels = calibration_batches(load(file, "two_inputs"), 6, 6, seed=0)
    assert [x.shape for x in inputs[0]] == [(6, 2), (6, 3)]
    assert labels is not None and sorted(labels[0].tolist()) == [0, 1, 2, 3, 4, 5]


def test_data_without_labels(file: Path) -> None:
    data = load(file, "unlabelled")
    inputs, labels = calibration_batches(data, 5, 5, seed=0)
    assert not data.labelled and labels is None
    assert inputs[0][0].sum() == 5


def test_the_choice_depends_on_the_seed_only(file: Path) -> None:
    first, again, other = (calibration_batches(load(file, "pair"), 5, 5, seed=s)[0][0][0] for s in (1, 1, 2))
    assert first.equal(again) and not first.equal(other)


def test_items_of_different_shapes_are_refused(file: Path) -> None:
    with pytest.raises(InputError, match="of one shape"):
        calibration_batches(load(file, "ragged"), 2, 2, seed=0)


def test_a_data_set_of_inputs_alone_is_unlabelled(file: Path) -> None:
    images, labels = calibration_batches(load(file, "single"), 4, 2, seed=0)
    assert [tuple(batch[0].shape) for batch in images] == [(2, 2), (2, 2)] and labels is None


def test_items_that_are_no_tuples_are_refused(file: Path) -> None:
    with pytest.raises(InputError, match="an item is a dict"):
        calibration_batches(load(file, "records"), 1, 1, seed=0)


def test_no_image_at_all_is_refused(file: Path) -> None:
    with pytest.raises(InputError, match="no calibration images"):
        calibration_batches(load(file, "batches", args={"count": 0}), 2, 2, seed=0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("number", "returned int"),
        ("half", "neither both of train and validation, nor calibration alone"),
        ("misspelt", "unknown keys trian"),
        ("no_loader", "'train' is a int, not a loader"),
        ("mappings", "a batch of 'train' is no"),
        ("wide", "are of shape \\[3\\], model.input is \\[2\\]"),
    ],
)
def test_anything_else_is_refused_with_the_contract(file: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load(file, name)
    assert caught.value.cure is not None and "(train, validation)" in caught.value.cure


def test_random_numbers_of_others_are_left_alone(file: Path) -> None:
    data = load(file, "pair")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    calibration_batches(data, 5, 5, seed=0)
    assert torch.rand(1).equal(expected)
