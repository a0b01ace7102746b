"""Fine-tuning that is interrupted anywhere ends as if it had not been."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from compressor.data.base import HeldOut
from compressor.errors import InputError
from compressor.recipe import FinetuneSection
from compressor.training import checkpoint, trainer
from compressor.training.best import Best
from compressor.training.checkpoint import Checkpoint
from compressor.training.history import Progress
from compressor.training.loop import finetune
from tests.training.conftest import Tiny

Make = Callable[[], DataLoader]


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save and report after every step."""
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE_OF_TIME", float("inf"))
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_REPORTS", 0.0)


def stop_at(step: int) -> Callable[[Progress], None]:
    """End as a kill would, in the middle of a step, before its state is saved."""

    def progress(state: Progress) -> None:
        if state.step == step:
            raise ZeroDivisionError

    return progress


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize(
    "change",
    [{}, {"average": 0.5, "clip": 1.0, "schedule": "allr"}, {"lr": 2.0, "schedule": "constant"}],
    ids=["plain", "aids", "wild"],
)
@pytest.mark.parametrize("judged", [False, True], ids=["last", "best"])
def test_a_run_killed_at_every_step_ends_with_the_same_weights(
    make_loader: Make, settings: FinetuneSection, tmp_path: Path, change: dict, judged: bool
) -> None:
    undisturbed, teacher, file = Tiny(), Tiny(seed=7), tmp_path / "state"
    settings = settings.model_copy(update=change)

    def judge_of(model: nn.Module) -> Best | None:
        return Best(model, HeldOut(make_loader())) if judged else None

    wanted = judge_of(undisturbed)
    expected = finetune(undisturbed, teacher, make_loader(), settings, seed=5, best=wanted)
    for step in range(1, 10):
        model = Tiny()
        rest = {"seed": 5, "best": judge_of(model), "checkpoint": file, "progress": stop_at(step)}
        with pytest.raises(ZeroDivisionError):
            finetune(model, teacher, make_loader(), settings, **rest)
        torch.manual_seed(step)
    resumed = Tiny()
    best = judge_of(resumed)
    history = finetune(resumed, teacher, make_loader(), settings, seed=5, best=best, checkpoint=file)
    assert same_weights(resumed, undisturbed)
    assert (best and best.found()) == (wanted and wanted.found())
    assert [(e.epoch, e.loss, e.metrics, e.lr) for e in history] == [
        (e.epoch, e.loss, e.metrics, e.lr) for e in expected
    ]


@pytest.mark.usefixtures("every_step")
def test_only_the_steps_that_were_missing_are_trained(
    make_loader: Make, settings: FinetuneSection, tmp_path: Path
) -> None:
    file, seen = tmp_path / "state", list[int]()
    with pytest.raises(ZeroDivisionError):
        finetune(Tiny(), None, make_loader(), settings, checkpoint=file, progress=stop_at(6))
    finetune(Tiny(), None, make_loader(), settings, checkpoint=file, progress=lambda p: seen.append(p.step))
    assert seen == [6, 7, 8, 9]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_and_interrupts(
    number: signal.Signals, make_loader: Make, settings: FinetuneSection, tmp_path: Path, every_step: None
) -> None:
    file, before = tmp_path / "state", (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))

    def stop(state: Progress) -> None:
        checkpoint.SECONDS_BETWEEN_SAVES = 1e9
        if state.step == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        finetune(Tiny(), None, make_loader(), settings, checkpoint=file, progress=stop)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    state = torch.load(file, weights_only=True)["state"]
    assert (len(state["history"]), state["batch"]) == (1, 2)


def test_a_finished_run_is_not_trained_again(make_loader: Make, settings: FinetuneSection, tmp_path: Path) -> None:
    first, again, file = Tiny(), Tiny(), tmp_path / "state"
    history = finetune(first, None, make_loader(), settings, checkpoint=file)
    assert finetune(again, None, make_loader(), settings, checkpoint=file, progress=stop_at(1)) == history
    assert same_weights(first, again)


def test_a_state_that_was_being_written_is_ignored(
    make_loader: Make, settings: FinetuneSection, tmp_path: Path
) -> None:
    (tmp_path / ".state.tmp").write_bytes(b"half of a file")
    undisturbed, model = Tiny(), Tiny()
    finetune(undisturbed, None, make_loader(), settings)
    finetune(model, None, make_loader(), settings, checkpoint=tmp_path / "state")
    assert same_weights(model, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_state_of_another_fine_tuning_is_refused(
    make_loader: Make, settings: FinetuneSection, tmp_path: Path
) -> None:
    finetune(Tiny(), None, make_loader(), settings, checkpoint=tmp_path / "state")
    with pytest.raises(InputError, match="other settings"):
        finetune(Tiny(), None, make_loader(), settings, seed=1, checkpoint=tmp_path / "state")


def test_a_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "owned"),)

    (tmp_path / "state").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(InputError, match="not a training checkpoint"):
        Checkpoint(tmp_path / "state", {}).restore()
    assert not (tmp_path / "owned").exists()


def test_saving_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 103.0, 252.0, 254.0])
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(clock))
    state = Checkpoint(tmp_path / "state", {})
    state.save({})  # takes 3 seconds
    assert not state.due()
    assert state.due()
