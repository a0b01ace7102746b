"""Training images that are kept out of training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from compressor.data import Data, calibration_batches, hold_out, load_data
from compressor.recipe import DataSection


def numbered(count: int) -> TensorDataset:
    """Images that are their numbers."""
    return TensorDataset(torch.arange(float(count))[:, None], torch.arange(count) % 3)


def data_of(train: object, calibration: Dataset | None = None) -> Data:
    calibration = calibration if calibration is not None else numbered(4)
    aligned = calibration is getattr(train, "dataset", None)
    return Data(train, calibration, [], None, aligned)  # type: ignore[arg-type]


def numbers(batches: object) -> list[int]:
    return [int(number) for batch in batches for number in batch[0].flatten()]  # type: ignore[attr-defined]


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter([(torch.ones(1), 0)] * 20)


@pytest.mark.parametrize(("count", "held"), [(16, 2), (400, 50), (1280, 64), (10_000, 500), (100_000, 1000)])
def test_a_share_of_the_images_is_held_out_within_bounds(count: int, held: int) -> None:
    found = hold_out(data_of(DataLoader(numbered(count), 1000)), 0, 0)
    assert found.held_out is not None and found.held_out.problem is None
    assert len(numbers(found.held_out.batches)) == held
    assert sorted(numbers(found.held_out.batches) + numbers(found.train)) == list(range(count))


def test_the_calibration_stays_what_it_was_and_sees_none_of_the_images_that_judge() -> None:
    dataset = numbered(600)
    data = data_of(DataLoader(dataset, 32, shuffle=True), dataset)
    found = hold_out(data, 500, 3)
    before, after = (numbers(calibration_batches(of, 500, 50, 3)[0]) for of in (data, found))
    assert before == after
    assert found.held_out is not None and not {*after} & {*numbers(found.held_out.batches)}


def test_where_all_images_would_calibrate_those_that_judge_do_not() -> None:
    dataset = numbered(100)
    found = hold_out(data_of(DataLoader(dataset, 32, shuffle=True), dataset), 1000, 0)
    assert found.held_out is not None
    calibrating = numbers(calibration_batches(found, 1000, 50, 0)[0])
    assert sorted(calibrating + numbers(found.held_out.batches)) == list(range(100))


def test_pictures_judge_as_they_are_evaluated_and_train_as_before() -> None:
    data = load_data(DataSection(source="digits", batch_size=64), (1, 16, 16), 0)
    found = hold_out(data, 512, 0)
    assert found.held_out is not None and isinstance(found.train, DataLoader) and isinstance(data.train, DataLoader)
    (first, _), (again, _) = (next(iter(found.held_out.batches)) for _ in range(2))
    assert torch.equal(first, again)
    whole = torch.stack([data.calibration[i][0] for i in range(1347)])
    assert all((image == whole).flatten(1).all(1).any() for image in first)
    assert found.train.generator is data.train.generator and found.train.dataset.stateless  # type: ignore[attr-defined]
    assert len(found.train) == (1347 - 67) // 64


def test_the_last_batch_is_never_a_single_image_nor_the_only_one_lost() -> None:
    found = hold_out(data_of(DataLoader(numbered(145), 128)), 0, 0)  # 18 held out would leave 127
    assert [len(batch[0]) for batch in found.train or ()] == [127]
    found = hold_out(data_of(DataLoader(numbered(145), 128, drop_last=True)), 0, 0)
    assert [len(batch[0]) for batch in found.train or ()] == [127]
    found = hold_out(data_of(DataLoader(numbered(147), 64)), 0, 0)  # 18 held out would leave 129
    assert [len(batch[0]) for batch in found.train or ()] == [64, 64]


def test_without_labels_nothing_is_held_out() -> None:
    data = Data(None, numbered(100), None, None)
    assert hold_out(data, 10, 0) == data


CANNOT = {
    "is a list, not a DataLoader": [(torch.ones(4, 1), torch.zeros(4, dtype=torch.long))] * 3,
    "one after another from a Stream": DataLoader(Stream(), 4),
    "the WeightedRandomSampler of": DataLoader(numbered(9), 4, sampler=WeightedRandomSampler([1.0] * 9, 9)),
    "the RandomSampler of": DataLoader(numbered(9), 4, sampler=RandomSampler(numbered(9), replacement=True)),
    "the BatchSampler of": DataLoader(numbered(9), batch_sampler=BatchSampler(RandomSampler(numbered(9)), 4, False)),
    "only 9 training images": DataLoader(numbered(9), 4, shuffle=True),
}


@pytest.mark.parametrize("problem", CANNOT)
def test_where_none_can_be_taken_out_the_first_batches_judge_and_the_reason_is_told(problem: str) -> None:
    found = hold_out(data_of(CANNOT[problem]), 0, 0)
    assert found.train is CANNOT[problem] and found.held_out is not None
    assert problem in (found.held_out.problem or "")
    first = numbers(found.held_out.batches)
    assert len(first) >= 8 and first == numbers(found.held_out.batches)
