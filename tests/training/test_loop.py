"""The fine-tuning loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from compressor.errors import InputError, MachineError
from compressor.recipe import FinetuneSection
from compressor.training.history import Progress
from compressor.training.loop import finetune
from tests.training.conftest import Tiny

Make = Callable[[], DataLoader]


def weights(model: Tiny) -> Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def test_the_network_learns(make_loader: Make, settings: FinetuneSection) -> None:
    history = finetune(Tiny(), None, make_loader(), settings.model_copy(update={"epochs": 12}))
    assert history[-1].loss < 0.5 * history[0].loss
    assert history[-1].metrics["accuracy"] > max(0.8, history[0].metrics["accuracy"])


def test_the_history_has_one_entry_per_epoch(make_loader: Make, settings: FinetuneSection) -> None:
    history = finetune(Tiny(), None, make_loader(), settings)
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert all(
        e.images_per_second == pytest.approx(48 / e.seconds) and 0 <= e.metrics["accuracy"] <= 1 for e in history
    )
    assert history[0].lr > history[1].lr > history[2].lr > 0


def test_no_epochs_leave_the_network_as_it_is(make_loader: Make, settings: FinetuneSection) -> None:
    model = Tiny()
    before = weights(model).clone()
    assert finetune(model, Tiny(1), make_loader(), settings.model_copy(update={"epochs": 0})) == []
    assert torch.equal(weights(model), before)


def test_distillation_pulls_towards_the_teacher(make_loader: Make, settings: FinetuneSection, images: Tensor) -> None:
    teacher = Tiny(seed=3).eval()
    settings = settings.model_copy(update={"epochs": 8, "distill_weight": 1.0})

    def distance(distill: bool) -> float:
        model = Tiny()
        finetune(model, teacher, make_loader(), settings.model_copy(update={"distill": distill}))
        with torch.no_grad():
            own, target = model.eval()(images).log_softmax(1), teacher(images).softmax(1)
            return float(F.kl_div(own, target, reduction="batchmean"))

    assert distance(distill=True) < 0.5 * distance(distill=False)


def test_distillation_without_a_teacher_trains_on_the_labels(make_loader: Make, settings: FinetuneSection) -> None:
    alone, plain = Tiny(), Tiny()
    finetune(alone, None, make_loader(), settings)
    finetune(plain, Tiny(3), make_loader(), settings.model_copy(update={"distill": False}))
    assert torch.equal(weights(alone), weights(plain))


def test_label_smoothing_raises_the_loss_of_the_right_answer(make_loader: Make, settings: FinetuneSection) -> None:
    settings = settings.model_copy(update={"epochs": 12})
    sharp = finetune(Tiny(), None, make_loader(), settings)
    smooth = finetune(Tiny(), None, make_loader(), settings.model_copy(update={"label_smoothing": 0.3}))
    assert smooth[-1].loss > sharp[-1].loss + 0.1


def test_the_teacher_answers_in_evaluation_mode_and_stays_as_it_was(
    make_loader: Make, settings: FinetuneSection
) -> None:
    teacher = Tiny(3).train()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    finetune(Tiny(), teacher, make_loader(), settings)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_every_module_gets_its_mode_back(make_loader: Make, settings: FinetuneSection) -> None:
    model = Tiny().eval()
    model.dropout.train()
    finetune(model, None, make_loader(), settings)
    assert [name for name, module in model.named_modules() if module.training] == ["dropout"]


def test_gradients_left_by_others_are_not_used(make_loader: Make, settings: FinetuneSection) -> None:
    clean, stale = Tiny(), Tiny()
    for parameter in stale.parameters():
        parameter.grad = torch.ones_like(parameter)
    finetune(clean, None, make_loader(), settings)
    finetune(stale, None, make_loader(), settings)
    assert torch.equal(weights(clean), weights(stale))


def test_the_same_seed_gives_the_same_weights_and_another_one_others(
    make_loader: Make, settings: FinetuneSection
) -> None:
    results = []
    for seed in (4, 4, 5):
        model = Tiny()
        finetune(model, None, make_loader(), settings, seed=seed)
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_progress_tells_of_every_epoch_and_ends_at_the_last_step(make_loader: Make, settings: FinetuneSection) -> None:
    told: list[Progress] = []
    history = finetune(Tiny(), None, make_loader(), settings, progress=told.append)
    assert {p.epoch for p in told} == {1, 2, 3}
    assert (told[-1].step, told[-1].steps, told[-1].epochs, told[-1].seconds_left) == (9, 9, 3, 0)
    assert told[-1].loss == pytest.approx(history[-1].loss)
    assert told[-1].metrics == pytest.approx(history[-1].metrics)


def test_a_plain_list_of_batches_will_do(settings: FinetuneSection, images: Tensor, labels: Tensor) -> None:
    assert len(finetune(Tiny(), None, [(images, labels)], settings)) == 3


def test_a_loss_that_is_not_finite_names_the_learning_rate(make_loader: Make, settings: FinetuneSection) -> None:
    with pytest.raises(
        InputError,
        match=r"finetune.lr: training diverged in epoch 1(.|\n)*lower finetune.lr \(now 1e\+30\), for example to 0.02",
    ):
        finetune(Tiny(), None, make_loader(), settings.model_copy(update={"lr": 1e30}))


def test_weights_ruined_by_the_last_step_are_not_returned(settings: FinetuneSection, labels: Tensor) -> None:
    settings = settings.model_copy(update={"epochs": 1, "lr": 1e10, "warmup": 0.0})
    huge = torch.full((len(labels), 2), 1e30)
    with pytest.raises(InputError, match="finetune.lr"):
        finetune(torch.nn.Linear(2, 3), None, [(huge, labels)], settings)


def test_an_empty_loader_is_refused(settings: FinetuneSection) -> None:
    with pytest.raises(InputError, match="no training batch"):
        finetune(Tiny(), None, [], settings)


def test_a_loader_without_a_length_is_refused(settings: FinetuneSection) -> None:
    class Endless:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return iter(())

    with pytest.raises(InputError, match="no length"):
        finetune(Tiny(), None, Endless(), settings)


def test_an_unknown_schedule_is_refused(make_loader: Make, settings: FinetuneSection) -> None:
    with pytest.raises(InputError, match="finetune.schedule"):
        finetune(Tiny(), None, make_loader(), settings.model_copy(update={"schedule": "kosine"}))


def test_accumulated_batches_make_the_step_of_one_large_batch(settings: FinetuneSection, images: Tensor) -> None:
    labels = torch.arange(len(images)) % 3
    settings = settings.model_copy(update={"epochs": 2, "warmup": 0.0})
    whole, parts = torch.nn.Flatten(), torch.nn.Flatten()
    results = []
    for network, size, accumulate in ((whole, 20, 1), (parts, 10, 2)):
        torch.manual_seed(0)
        model = torch.nn.Sequential(network, torch.nn.Linear(16, 3))
        loader = list(zip(images[:40].split(size), labels[:40].split(size), strict=True))
        finetune(model, None, loader, settings.model_copy(update={"accumulate": accumulate}))
        results.append(model[1].weight.detach())
    assert torch.allclose(*results, atol=1e-6)


def test_the_last_batches_of_an_epoch_make_a_step_of_their_own(settings: FinetuneSection, images: Tensor) -> None:
    labels = torch.arange(len(images)) % 3
    settings = settings.model_copy(update={"epochs": 1, "warmup": 0.0, "schedule": "constant"})
    results = []
    for loader, accumulate in (
        ([(images[:20], labels[:20]), (images[20:30], labels[20:30])], 1),
        ([(images[i : i + 10], labels[i : i + 10]) for i in (0, 10, 20)], 2),
    ):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        finetune(model, None, loader, settings.model_copy(update={"accumulate": accumulate}))
        results.append(model[1].weight.detach())
    assert torch.allclose(*results, atol=1e-6)


def test_clipped_gradients_change_the_weights_less(make_loader: Make, settings: FinetuneSection) -> None:
    start, free, clipped = Tiny(), Tiny(), Tiny()
    settings = settings.model_copy(update={"epochs": 1, "weight_decay": 0.0, "momentum": 0.0})
    finetune(free, None, make_loader(), settings)
    finetune(clipped, None, make_loader(), settings.model_copy(update={"clip": 1e-3}))
    moved = float((weights(clipped) - weights(start)).norm())
    assert 0 < moved <= 3 * 0.05 * 1e-3 < float((weights(free) - weights(start)).norm())


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"channels_last": True}])
def test_other_precision_and_layout_learn_alike_and_leave_plain_weights(
    make_loader: Make, settings: FinetuneSection, change: dict
) -> None:
    settings = settings.model_copy(update={"epochs": 8})
    plain, other = Tiny(), Tiny()
    expected = finetune(plain, Tiny(3), make_loader(), settings)
    history = finetune(other, Tiny(3), make_loader(), settings.model_copy(update=change))
    assert history[-1].loss == pytest.approx(expected[-1].loss, rel=0.1)
    assert not torch.equal(weights(plain), weights(other)) or "channels_last" in change
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    assert all(p.is_contiguous() for p in other.parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_half_precision_without_a_gpu_is_refused(make_loader: Make, settings: FinetuneSection) -> None:
    with pytest.raises(MachineError, match="fp16 needs a GPU"):
        finetune(Tiny(), None, make_loader(), settings.model_copy(update={"precision": "fp16"}))
