from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import exporters
from tests.exporters.models import Residual, TwoInputs, with_statistics

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that returns its input."""
    return exporters.export_onnx(Scale(1.0), torch.ones(1, 2), tmp_path_factory.mktemp("parity") / "m.onnx")


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_exported_file_agrees_at_every_batch_size(tmp_path: Path) -> None:
    model = with_statistics(Residual())
    path = exporters.export_onnx(model, IMAGES, tmp_path / "m.onnx")
    parity = exporters.check_parity(model, path, IMAGES)
    assert parity.max_rel < 1e-5 and parity.batch_sizes == (1, 3, 8)


def test_differences_are_measured(scaled: Path) -> None:
    parity = exporters.check_parity(Scale(2.0), scaled, torch.tensor([[1.0, 4.0]]))
    assert parity.max_abs == pytest.approx(4.0) and parity.max_rel == pytest.approx(0.5)


def test_items_beyond_the_first_are_compared(scaled: Path) -> None:
    class Wrong(Scale):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + (x > 5)

    inputs = torch.tensor([[1.0, 1.0], [1.0, 9.0]])
    assert exporters.check_parity(Wrong(1.0), scaled, inputs, batch_sizes=(1,)).max_abs == 0
    assert exporters.check_parity(Wrong(1.0), scaled, inputs, batch_sizes=(1, 3)).max_abs == pytest.approx(1.0)


def test_not_a_number_is_never_close(scaled: Path) -> None:
    parity = exporters.check_parity(Scale(float("nan")), scaled, torch.ones(1, 2))
    assert parity.max_rel == float("inf")


def test_fixed_file_is_compared_at_its_batch(tmp_path: Path) -> None:
    path = exporters.export_onnx(Residual(), IMAGES[:2], tmp_path / "m.onnx", dynamic_batch=False)
    assert exporters.check_parity(Residual(), path, IMAGES).batch_sizes == (2,)


def test_file_with_other_inputs_is_refused(scaled: Path) -> None:
    with pytest.raises(exporters.ExportError, match="1 inputs, not 2"):
        exporters.check_parity(TwoInputs(), scaled, (torch.ones(1, 4), torch.ones(1, 4)))


def test_file_with_other_outputs_is_refused(scaled: Path) -> None:
    with pytest.raises(exporters.ExportError, match="shapes"):
        exporters.check_parity(nn.Linear(2, 5), scaled, torch.ones(1, 2))


def test_model_keeps_its_mode(scaled: Path) -> None:
    model = Scale(1.0).train()
    exporters.check_parity(model, scaled, torch.ones(1, 2))
    assert model.training
