"""Fine-tuning that is interrupted ends as if it had not been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from compressor.errors import InputError
from compressor.recipe import FinetuneSection
from compressor.training.history import Progress
from compressor.training.loop import finetune
from tests.training.conftest import Tiny

Make = Callable[[], DataLoader]


def stop_in(epoch: int) -> Callable[[Progress], None]:
    def progress(state: Progress) -> None:
        if state.epoch == epoch:
            raise KeyboardInterrupt

    return progress


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_run_stopped_after_its_first_epoch_ends_with_the_same_weights(
    make_loader: Make, settings: FinetuneSection, tmp_path: Path
) -> None:
    undisturbed, resumed, teacher = Tiny(), Tiny(), Tiny(seed=7)
    expected = finetune(undisturbed, teacher, make_loader(), settings, seed=5)
    with pytest.raises(KeyboardInterrupt):
        finetune(Tiny(), teacher, make_loader(), settings, seed=5, checkpoint_dir=tmp_path, progress=stop_in(2))
    torch.manual_seed(12345)
    history = finetune(resumed, teacher, make_loader(), settings, seed=5, checkpoint_dir=tmp_path)
    assert same_weights(resumed, undisturbed)
    assert [(e.epoch, e.loss, e.accuracy, e.lr) for e in history] == [
        (e.epoch, e.loss, e.accuracy, e.lr) for e in expected
    ]


def test_only_the_epochs_that_were_missing_are_trained(
    make_loader: Make, settings: FinetuneSection, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        finetune(Tiny(), None, make_loader(), settings, checkpoint_dir=tmp_path, progress=stop_in(3))
    seen: list[int] = []
    finetune(Tiny(), None, make_loader(), settings, checkpoint_dir=tmp_path, progress=lambda p: seen.append(p.epoch))
    assert set(seen) == {3}


def test_a_finished_run_is_not_trained_again(make_loader: Make, settings: FinetuneSection, tmp_path: Path) -> None:
    first, again = Tiny(), Tiny()
    history = finetune(first, None, make_loader(), settings, checkpoint_dir=tmp_path)
    assert finetune(again, None, make_loader(), settings, checkpoint_dir=tmp_path, progress=stop_in(1)) == history
    assert same_weights(first, again)


def test_only_the_newest_state_is_kept(make_loader: Make, settings: FinetuneSection, tmp_path: Path) -> None:
    finetune(Tiny(), None, make_loader(), settings, checkpoint_dir=tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == ["epoch-3"]


def test_a_state_that_was_being_written_is_ignored(
    make_loader: Make, settings: FinetuneSection, tmp_path: Path
) -> None:
    (tmp_path / "writing").mkdir()
    (tmp_path / "writing" / "model.safetensors").write_bytes(b"half of a file")
    undisturbed, model = Tiny(), Tiny()
    finetune(undisturbed, None, make_loader(), settings)
    finetune(model, None, make_loader(), settings, checkpoint_dir=tmp_path)
    assert same_weights(model, undisturbed)


def test_a_state_of_another_fine_tuning_is_refused(
    make_loader: Make, settings: FinetuneSection, tmp_path: Path
) -> None:
    finetune(Tiny(), None, make_loader(), settings, checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="other settings"):
        finetune(Tiny(), None, make_loader(), settings, seed=1, checkpoint_dir=tmp_path)
