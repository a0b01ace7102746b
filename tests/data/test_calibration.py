"""Calibration images: kept while they are few, else read when they are asked for; the same ones either way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import compressor.data.calibration
from compressor.data import Data, calibration_batches, other_batches
from compressor.errors import InputError
from compressor.support.batches import sizes_of


class Numbers(Dataset[Any]):
    """Items that know their number; counts how often any is read."""

    def __init__(self, count: int = 20, labelled: bool = True, noise: float = 0.0, ragged: int = -1) -> None:
        self.count, self.labelled, self.noise, self.ragged, self.reads = count, labelled, noise, ragged, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        x = torch.full((2 if index == self.ragged else 3,), float(index)) + self.noise * torch.rand(1)
        return (x, index % 5) if self.labelled else x


def data(items: Dataset[Any]) -> Data:
    return Data(None, items, None, None)


@pytest.fixture
def unkept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressor.data.calibration, "KEPT_BYTES", 0)


def values(batches: Any) -> list[float]:
    return [float(x[0]) for (batch,) in batches for x in batch]


@pytest.mark.parametrize("labelled", [True, False])
def test_what_is_read_late_is_what_would_have_been_kept(labelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, labels = calibration_batches(data(Numbers(labelled=labelled)), 10, 4, seed=1)
    others = other_batches(data(Numbers()), 10, 4, seed=1)
    monkeypatch.setattr(compressor.data.calibration, "KEPT_BYTES", 0)
    late, late_labels = calibration_batches(data(Numbers(labelled=labelled)), 10, 4, seed=1)
    assert values(late) == values(kept) and list(sizes_of(late)) == [4, 4, 2]
    assert (labels is None) == (late_labels is None) == (not labelled)
    if labels is not None and late_labels is not None:
        assert [t.tolist() for t in labels] == [t.tolist() for t in late_labels]
    assert values(other_batches(data(Numbers()), 10, 4, seed=1)) == values(others)


def test_few_images_are_read_once() -> None:
    items = Numbers()
    images, _ = calibration_batches(data(items), 10, 4, seed=1)
    assert values(images) == values(images) and items.reads == 10


@pytest.mark.usefixtures("unkept")
def test_many_images_are_not_held() -> None:
    items = Numbers()
    images, labels = calibration_batches(data(items), 10, 4, seed=1)
    assert labels is not None
    before = items.reads
    for number in range(3):
        assert len(images[number][0]) == len(labels[number])
    assert items.reads <= before + 10  # a batch and its labels are read together
    values(images)
    assert items.reads >= before + 16


@pytest.mark.usefixtures("unkept")
def test_what_is_drawn_while_an_image_is_read_stays_the_same() -> None:
    images, _ = calibration_batches(data(Numbers(noise=0.5)), 10, 4, seed=1)
    forwards, backwards = [images[n][0] for n in range(3)], [images[n][0] for n in reversed(range(3))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))


@pytest.mark.usefixtures("unkept")
def test_random_numbers_of_others_are_left_alone_while_images_are_read() -> None:
    images, _ = calibration_batches(data(Numbers(noise=0.5)), 10, 4, seed=1)
    state = torch.random.get_rng_state()
    values(images)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.usefixtures("unkept")
def test_an_item_that_does_not_fit_is_refused_when_it_is_read() -> None:
    images, _ = calibration_batches(data(Numbers(ragged=7)), 20, 4, seed=0)
    with pytest.raises(InputError, match="cannot be put together"):
        values(images)


@pytest.mark.usefixtures("unkept")
def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="no calibration images"):
        calibration_batches(data(Numbers(0)), 20, 4, seed=0)
    assert not other_batches(data(Numbers(4)), 20, 4, seed=0)
