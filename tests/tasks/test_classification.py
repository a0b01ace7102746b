import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.tasks import agreement, evaluate

LABELS = torch.tensor([0, 1, 2, 3, 4, 5])


def logits(*best: int, classes: int = 8) -> Tensor:
    """One row per image: the given class first, the others by falling number."""
    rows = torch.arange(classes, dtype=torch.float32).repeat(len(best), 1)
    rows[range(len(best)), list(best)] = 100.0
    return rows


def loader(outputs: Tensor, labels: Tensor = LABELS, size: int = 4) -> list[Any]:
    return list(zip(outputs.split(size), labels.split(size), strict=True))


def test_accuracy_is_the_share_of_right_answers_over_batches_of_different_sizes() -> None:
    result = evaluate(nn.Identity(), loader(logits(0, 1, 2, 7, 7, 7)))
    assert (result.main, result.images) == (0.5, 6)


def test_top5_looks_at_the_best_five() -> None:
    assert evaluate(nn.Identity(), loader(logits(7, 7, 7, 7, 7, 7))).metrics["top5"] == pytest.approx(3 / 6)


def test_top5_of_fewer_than_five_classes_is_one() -> None:
    assert evaluate(nn.Identity(), loader(logits(1, 1, classes=2), torch.tensor([0, 1]))).metrics["top5"] == 1


def test_loss_is_the_mean_cross_entropy() -> None:
    outputs = torch.randn(6, 8)
    expected = nn.functional.cross_entropy(outputs, LABELS)
    assert evaluate(nn.Identity(), loader(outputs)).metrics["loss"] == pytest.approx(float(expected))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_output_that_is_not_finite_is_a_wrong_answer(value: float) -> None:
    outputs = logits(0, 1, 2, 3, 4, 5)
    outputs[0, 0] = value
    result = evaluate(nn.Identity(), loader(outputs))
    assert result.main == pytest.approx(5 / 6)
    assert not math.isfinite(result.metrics["loss"])


def test_the_network_is_measured_in_evaluation_mode_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Dropout(1.0), nn.BatchNorm1d(8)).train()
    model[1].eval()
    assert evaluate(model, loader(logits(0, 1, 2, 3, 4, 5))).main == 1
    assert [module.training for module in model.modules()] == [True, True, False]


def test_flags_are_restored_after_a_fault() -> None:
    model = nn.Linear(3, 8).train()
    with pytest.raises(RuntimeError):
        evaluate(model, loader(torch.zeros(6, 5)))
    assert model.training


def test_progress_is_told_after_every_batch() -> None:
    told: list[tuple[int, int]] = []
    evaluate(nn.Identity(), loader(logits(0, 1, 2, 3, 4, 5)), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_a_network_with_two_inputs_gets_both() -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    assert evaluate(Sum(), [(logits(0, 1), torch.zeros(2, 8), torch.tensor([0, 1]))]).main == 1


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "no validation images"),
        ([(torch.zeros(2, 3), torch.tensor([0, 3]))], "a label 3, but the network has classes 0 to 2"),
        ([(torch.zeros(2, 3), torch.tensor([0, -1]))], "a label -1"),
        ([(torch.zeros(2, 3), torch.tensor([0.0, 1.0]))], "not a class number for each"),
        ([(torch.zeros(2, 3, 4), torch.tensor([0, 1]))], r"returns \[2, 3, 4\], not \[batch, classes\]"),
    ],
)
def test_labels_and_outputs_must_go_together(batches: list[Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        evaluate(nn.Identity(), batches)


def test_batches_that_memory_is_too_small_for_are_evaluated_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(nn.Identity):
        sizes: list[int] = []

        def forward(self, x: Tensor) -> Tensor:
            self.sizes.append(len(x))
            return x

    monkeypatch.setattr("compressor.tasks.evaluation.inputs_in_a_pass", lambda *args: 2)
    found = evaluate(Counting(), loader(logits(0, 1, 2, 7, 7, 7)))
    assert found == evaluate(nn.Identity(), loader(logits(0, 1, 2, 7, 7, 7)))
    assert Counting.sizes == [2, 2, 2]


def test_agreement_is_the_share_of_equal_answers() -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.roll(1, 0)

    batches = [(logits(0, 1),), (logits(2, 2, 2),)]
    assert agreement(nn.Identity(), nn.Identity(), batches) == 1
    assert agreement(Wrong(), nn.Identity(), batches) == pytest.approx(3 / 5)


def test_answers_that_are_not_finite_never_agree() -> None:
    assert agreement(nn.Identity(), nn.Identity(), [(torch.full((2, 3), math.nan),)]) == 0
