import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from compressor.data import Data, load_data
from compressor.errors import InputError
from compressor.recipe import DataSection, Normalize

SHAPE = (3, 16, 16)


def load(root: Path | None, shape: tuple[int, ...] = SHAPE, seed: int = 0, **options: Any) -> Data:
    return load_data(DataSection(source="imagefolder", root=root, **{"batch_size": 4} | options), shape, seed)


def batches(loader: Any) -> list[Any]:
    return list(loader)


def test_the_parts_have_their_images_and_classes(folder: Path) -> None:
    data = load(folder)
    assert data.classes == ["cat", "dog"] and data.labelled
    assert len(data.calibration) == 12  # type: ignore[arg-type]
    assert [x.shape for x, _ in batches(data.validation)] == [(4, *SHAPE)]
    assert torch.cat([y for _, y in batches(data.validation)]).tolist() == [0, 0, 1, 1]
    assert sum(len(x) for x, _ in batches(data.train)) == 12


def test_calibration_is_the_training_image_normalised_and_not_augmented(folder: Path) -> None:
    normalize = Normalize(mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.3))
    x, y = load(folder, normalize=normalize).calibration[7]
    pixels = torch.from_numpy(np.array(Image.open(folder / "train/dog/1.png"))).permute(2, 0, 1) / 255
    torch.testing.assert_close(
        x, (pixels - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    )
    assert y == 1


def test_a_training_image_is_moved_or_mirrored_only(folder: Path) -> None:
    data = load(folder)
    originals = {round(float(x.sum()), 2) for x, _ in (data.calibration[i] for i in range(12))}
    changed = [x for x, _ in batches(data.train)]
    assert all(float(x.min()) >= 0 and float(x.max()) <= 1 for x in changed)
    assert not {round(float(image.sum()), 2) for x in changed for image in x} <= originals


def test_without_augmentation_training_images_are_the_calibration_images(folder: Path) -> None:
    data = load(folder, augment=False)
    originals = [data.calibration[i][0] for i in range(12)]
    for x, _ in batches(data.train):
        assert all(any(image.equal(original) for original in originals) for image in x)


@pytest.mark.parametrize("shape", [SHAPE, (3, 72, 72)])
def test_the_same_seed_gives_the_same_batches_with_and_without_workers(folder: Path, shape: tuple[int, ...]) -> None:
    first, again, parallel, other = (
        batches(load(folder, shape, seed=seed, workers=workers).train)
        for seed, workers in ((1, 0), (1, 0), (1, 2), (2, 0))
    )
    assert all(
        a.equal(b) and a.equal(c)
        for x, y, z in zip(first, again, parallel, strict=True)
        for a, b, c in zip(x, y, z, strict=True)
    )
    assert not first[0][0].equal(other[0][0])


def test_every_epoch_is_another(folder: Path) -> None:
    train = load(folder).train
    assert not batches(train)[0][0].equal(batches(train)[0][0])


def test_drawing_a_batch_leaves_the_random_numbers_of_others_alone(folder: Path) -> None:
    data = load(folder)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    data.calibration[0]
    assert torch.rand(2).equal(expected)


def test_images_are_decoded_once(folder: Path) -> None:
    data = load(folder)
    before = batches(data.validation)
    shutil.rmtree(folder)
    assert batches(data.validation)[0][0].equal(before[0][0])


@pytest.mark.parametrize(("size", "shape"), [(16, (3, 8, 8)), (16, (3, 24, 8)), (90, (3, 72, 72)), (8, (3, 16, 16))])
def test_images_of_another_size_are_fitted(tmp_path: Path, paint: Any, size: int, shape: tuple[int, ...]) -> None:
    paint(tmp_path / "a.png", size=size)
    assert load(tmp_path, shape).calibration[0].shape == shape


def test_one_channel_is_grey(folder: Path) -> None:
    x, _ = load(folder, (1, 16, 16)).calibration[0]
    assert x.shape == (1, 16, 16)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_every_kind_become_colour(tmp_path: Path, paint: Any, mode: str) -> None:
    paint(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), mode=mode)
    assert load(tmp_path).calibration[0].shape == SHAPE


@pytest.mark.parametrize("name", ["validation", "test"])
def test_the_validation_folder_has_other_usual_names(folder: Path, name: str) -> None:
    (folder / "val").rename(folder / name)
    assert load(folder).labelled


def test_a_folder_of_images_only_is_for_calibration(folder: Path) -> None:
    data = load(folder / "train" / "cat")
    assert not data.labelled and data.train is None and data.validation is None
    assert data.calibration[0].shape == SHAPE


def test_hidden_files_are_passed_over(folder: Path) -> None:
    (folder / "train/cat/.DS_Store").write_text("x")
    (folder / "train/.thumbs").write_text("x")
    assert len(load(folder).calibration) == 12  # type: ignore[arg-type]


def empty(path: str) -> Callable[[Path], None]:
    return lambda root: [file.unlink() for file in (root / path).iterdir()] and None


def removed(path: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / path)


def text(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_text("not an image") and None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (removed(""), ["data.root", "no folder"]),
        (removed("val"), ["no folder val or validation or test"]),
        (removed("train"), ["no folder 'train'"]),
        (empty("train/cat"), ["train/cat", "no images"]),
        (empty("val/dog"), ["val/dog", "no images"]),
        (removed("val/dog"), ["val", "dog"]),
        (removed("train/dog"), ["train", "dog"]),
        (text("train/cat/notes.txt"), ["train/cat/notes.txt", "not an image file"]),
        (text("val/list.csv"), ["val/list.csv", "beside"]),
    ],
)
def test_each_fault_of_the_folders_is_named(folder: Path, spoil: Callable[[Path], None], words: list[str]) -> None:
    spoil(folder)
    with pytest.raises(InputError) as caught:
        load(folder)
    assert caught.value.cure
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("content", "workers"), [(b"", 0), (b"not an image", 0), (b"\x89PNG\r\n\x1a\nbroken", 0), (b"not an image", 1)]
)
def test_a_file_that_cannot_be_decoded_is_named_once(folder: Path, content: bytes, workers: int) -> None:
    path = folder / "val/cat/1.png"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        batches(load(folder, workers=workers).validation)
    assert str(caught.value).startswith(f"{path}: the image cannot be decoded")
    assert "Traceback" not in str(caught.value)


def test_a_truncated_image_is_named(folder: Path) -> None:
    path = folder / "val/cat/1.png"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(InputError, match="val/cat/1.png"):
        batches(load(folder).validation)


def test_a_missing_root_is_asked_for() -> None:
    with pytest.raises(InputError, match="set data.root"):
        load(None)


def test_normalisation_must_have_a_value_per_channel(folder: Path) -> None:
    with pytest.raises(InputError, match="data.normalize.mean: it has 1 values, but model.input has 3"):
        load(folder, normalize=Normalize(mean=(0.5,), std=(0.5,)))


@pytest.mark.parametrize("shape", [(16,), (2, 16, 16)])
def test_an_input_that_is_no_image_is_refused(folder: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="model.input"):
        load(folder, shape)


def test_an_unknown_source_lists_the_others() -> None:
    with pytest.raises(InputError, match="did you mean 'imagefolder'"):
        load_data(DataSection(source="imagefoldr"), SHAPE, 0)


def test_a_class_that_is_empty_in_training_only_is_named(folder: Path) -> None:
    (folder / "train" / "void").mkdir()
    with pytest.raises(InputError, match="no images") as caught:
        load(folder)
    assert caught.value.where is not None and caught.value.where.endswith("void")
