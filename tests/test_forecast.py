"""Memory is forecast, and too little of it ends a run with a cure before the long work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import MachineError
from compressor.forecast import Forecaster, check_memory
from compressor.structure import find_groups

GIB = 2**30


def forecaster(images: int = 256, size: int = 64, batch: int = 64) -> Forecaster:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()
    groups = find_groups(model, torch.zeros(2, 3, size, size))
    data = [(torch.zeros(1, 3, size, size).expand(batch, -1, -1, -1),) for _ in range(images // batch)]
    return Forecaster(model, groups, data, moments=True, refit=True)


def test_enough_memory_is_said_to_be_enough() -> None:
    said = check_memory(forecaster(), 64 * GIB)
    assert said.startswith("memory: up to ") and "of 64.0 GB" in said
    assert "of" not in check_memory(forecaster(), None)


def test_too_little_memory_is_told_with_a_cure_that_cures() -> None:
    given = forecaster()
    available = (given.stages(256)["refit"] + given.stages(64)["refit"]) // 2
    assert given.stages(64)["select"] < available
    with pytest.raises(MachineError, match=r"(?s)refit needs .* compress.calibration.images: (128|64)") as caught:
        check_memory(given, available)
    assert caught.value.exit_code == 3
    images = int(str(caught.value).rpartition(": ")[2])
    assert max(given.stages(images).values()) <= available


def test_where_fewer_images_are_no_help_they_are_not_asked_for() -> None:
    with pytest.raises(MachineError) as caught:
        check_memory(forecaster(), 1000)
    assert "images" not in str(caught.value)


def test_processes_share_what_there_is() -> None:
    given = forecaster()
    needed = max(given.stages(256).values())
    check_memory(given, 2 * needed, processes=2)
    with pytest.raises(MachineError):
        check_memory(given, 2 * needed - 2, processes=2)


def test_the_forecast_does_not_grow_with_the_number_of_images() -> None:
    few, many = (forecaster(images=images, batch=2**12).stages(images) for images in (2**20, 2**22))
    assert many["refit"] == pytest.approx(few["refit"], rel=0.05)
    assert many["select"] == few["select"] and many["evaluate"] == few["evaluate"]
