"""Curves for TensorBoard."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from compressor.errors import InputError
from compressor.support.tensorboard import tensorboard


def test_what_is_not_installed_is_named_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"--tensorboard[\s\S]*pip install tensorboard"), tensorboard(tmp_path):
        pass


def test_every_value_is_a_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []

    class Writer:
        def __init__(self, directory: Path) -> None:
            written.append(directory)

        def __enter__(self) -> Writer:
            return self

        def __exit__(self, *error: object) -> None:
            written.append("closed")

        def add_scalar(self, *values: object) -> None:
            written.append(values)

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with tensorboard(tmp_path) as listener:
        assert listener is not None
        listener("finetune", 5, {"loss": 0.5, "lr": 0.1})
    assert written == [tmp_path, ("finetune/loss", 0.5, 5), ("finetune/lr", 0.1, 5), "closed"]


def test_torch_writes_files_that_tensorboard_reads(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard(tmp_path) as listener:
        assert listener is not None
        for step in (1, 2):
            listener("finetune", step, {"loss": 1 / step})
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(point.step, point.value) for point in found.Scalars("finetune/loss")] == [(1, 1.0), (2, 0.5)]
