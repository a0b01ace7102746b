"""Memory is forecast, and too little of it ends a run with a cure before the long work."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from compressor.errors import MachineError
from compressor.pipeline.memory_forecast import Forecaster, check_memory
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


MEASURED = """
import re
from pathlib import Path
import torch
from torch import nn
from compressor.pipeline.memory_forecast import Forecaster
from compressor.refit import refit
from compressor.selection.base import Calibration
from compressor.selection.methods.imitation import Imitation
from compressor.structure import Plan, find_groups

def status(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

torch.set_num_threads(1)
convs = [nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in ((3, 64), (64, 64), (64, 64))]
model = nn.Sequential(*(m for conv in convs for m in (conv, nn.ReLU())), nn.Flatten(), nn.Linear(4096, 10)).eval()
groups = find_groups(model, torch.zeros(2, 3, 64, 64))
images = [(torch.randn(128, 3, 64, 64),) for _ in range(6)]
forecast = max(Forecaster(model, groups, images, moments=True, refit=True).stages(768).values())
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
rankings = Imitation().rank(Calibration(model, groups, images))
refit(model, Plan.uniform(groups, 0.5), images, groups=groups)
print(forecast, status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_the_forecast_is_within_a_factor_of_what_is_measured() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    forecast, measured = map(int, done.stdout.split())
    assert 0.4 * forecast < measured < 1.2 * forecast


def test_the_forecast_does_not_grow_with_the_number_of_images() -> None:
    few, many = (forecaster(images=images, batch=2**12).stages(images) for images in (2**20, 2**22))
    assert many["refit"] == pytest.approx(few["refit"], rel=0.05)
    assert many["select"] == few["select"] and many["evaluate"] == few["evaluate"]
