import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from compressor.data import load_data
from compressor.errors import InputError
from compressor.recipe import DataSection


def load(name: str, root: Path, **args: Any) -> Any:
    return load_data(DataSection(source=f"torchvision:{name}", root=root, args=args, batch_size=4), (3, 32, 32), 0)


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 in its own format, with 5 images per file."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3072), dtype=np.uint8)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [0, 1, 2, 3, 4]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: True)
    return tmp_path


def test_a_data_set_with_a_train_flag(cifar: Path) -> None:
    data = load("CIFAR10", cifar)
    assert len(data.calibration) == 25 and data.classes == list("abcdefghij")
    assert sum(len(x) for x, _ in data.validation) == 5


def test_a_data_set_with_splits_takes_the_first_validation_part_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(root: Path, split: str, size: int) -> datasets.FakeData:
        if split not in ("train", "test"):
            raise ValueError(f"no split {split}")
        return datasets.FakeData(size * (2 if split == "train" else 1), (3, 32, 32), 10)

    monkeypatch.setattr(datasets, "SVHN", build)
    data = load("SVHN", tmp_path, size=3)
    assert (len(data.calibration), len(data.validation.dataset)) == (6, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CIFAR1O", ["data.source", "no data set 'CIFAR1O'", "CIFAR10"]),
        ("CIFAR10", ["data.root", "nothing is downloaded"]),
        ("MNIST", ["data.root", "nothing is downloaded"]),
        ("SVHN", ["data.root", "nothing is downloaded"]),
        ("EuroSAT", ["no training and validation part"]),
    ],
)
def test_a_data_set_that_is_not_there_is_named(tmp_path: Path, name: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load(name, tmp_path)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not list(tmp_path.rglob("*.*"))


def test_an_item_that_is_no_image_with_a_class_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "SVHN", lambda root, split: [(None, "x")])
    with pytest.raises(InputError, match="torchvision:SVHN, validation part: image 0 cannot be used"):
        list(load("SVHN", tmp_path).validation)
