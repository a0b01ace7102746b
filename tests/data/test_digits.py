from typing import Any

import pytest

from compressor.data import load_data
from compressor.recipe import DataSection


def digits(shape: tuple[int, ...] = (1, 32, 32), seed: int = 0, **options: Any) -> Any:
    return load_data(DataSection(source="digits", **options), shape, seed)


def test_the_split_is_the_same_for_every_seed() -> None:
    first, second = (next(iter(digits(seed=seed).validation)) for seed in (0, 1))
    assert first[0].equal(second[0]) and first[1].equal(second[1])


def test_every_class_has_its_share_in_validation() -> None:
    labels = [int(label) for _, y in digits().validation for label in y]
    assert len(labels) == 450
    assert all(40 <= labels.count(digit) <= 50 for digit in range(10))


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 32, 32), (3, 16, 16)])
def test_images_have_the_shape_of_the_input(shape: tuple[int, ...]) -> None:
    x, _ = digits(shape).calibration[0]
    assert x.shape == shape
    assert 0 <= float(x.min()) < float(x.max()) <= 1


def test_training_images_are_moved_but_never_mirrored() -> None:
    data = digits(batch_size=1347)
    sums = {round(float(data.calibration[i][0].sum(2).max()), 3) for i in range(1347)}
    x, _ = next(iter(data.train))
    assert not all(round(float(image.sum(2).max()), 3) in sums for image in x)
    weights = x.sum(2)[:, 0]
    assert weights.argmax(1).float().std() > 0
