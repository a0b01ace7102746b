"""Rectifiers that change nothing are not exported; all others are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import exporters


class Plain(nn.Module):
    """Convolution, rectifier, something, rectifier."""

    def __init__(self, between: str) -> None:
        super().__init__()
        self.conv, self.between = nn.Conv2d(3, 4, 3), BETWEEN[between][0]

    def forward(self, x: Tensor) -> Tensor:
        return self.between(self.conv(x).relu()).relu()


BETWEEN = {
    "nothing": (lambda x: x, 1),
    "shortcut": (lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)), 1),
    "pool": (lambda x: F.max_pool2d(x, 2), 1),
    "sum": (lambda x: x + x.mean((2, 3), keepdim=True), 1),
    "join": (lambda x: torch.cat([x, x.sigmoid()], 1), 1),
    "below": (lambda x: F.pad(x, (1, 1), value=-1.0), 2),
    "difference": (lambda x: x - x.mean((2, 3), keepdim=True), 2),
    "half": (lambda x: torch.cat([x, -x], 1), 2),
    "negative": (lambda x: -x, 2),
    "shift": (lambda x: x + torch.tensor([[[[-0.3]]]]), 2),
}
"""What lies between two rectifiers, and how many are needed."""


@pytest.mark.parametrize("between", BETWEEN)
def test_a_rectifier_goes_where_nothing_is_below_zero(between: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Plain(between).eval(), torch.randn(2, 3, 10, 10)
    file = exporters.export_onnx(model, x, tmp_path / "model.onnx")
    assert exporters.count_nodes(file).get("Relu", 0) == BETWEEN[between][1]
    assert exporters.check_parity(model, file, x).max_abs < 1e-5
