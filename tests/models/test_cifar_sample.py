import os
from pathlib import Path

import pytest
import torch

from compressor.models.builder import build_model
from compressor.models.checkpoint import load_checkpoint
from compressor.recipe import ModelSection

SAMPLE = Path(__file__).parents[2] / "samples/cifar10-resnet"
PARAMETERS = {"resnet20": 269722, "resnet32": 464154, "resnet44": 658586, "resnet56": 853018, "resnet110": 1727962}


def build(name: str) -> torch.nn.Module:
    return build_model(ModelSection(builder=f"model.py:{name}", input=(3, 32, 32)), SAMPLE)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_networks_have_the_published_sizes(name: str) -> None:
    assert sum(parameter.numel() for parameter in build(name).parameters()) == PARAMETERS[name]


def test_the_shortcut_takes_every_second_pixel_and_pads_both_sides() -> None:
    block = build("resnet20").layer2[0]  # type: ignore[union-attr, index]
    x = torch.randn(1, 16, 8, 8)
    y = block.shortcut(x)  # type: ignore[operator]
    assert y.shape == (1, 32, 4, 4)
    assert y[:, 8:24].equal(x[:, :, ::2, ::2])
    assert y.abs().sum() == y[:, 8:24].abs().sum()


@pytest.mark.skipif("COMPRESSOR_DATA" not in os.environ, reason="COMPRESSOR_DATA names the folder of the checkpoints")
@pytest.mark.parametrize("file", ["resnet20-12fca82f.th", "resnet56-4bfd9763.th"])
def test_published_checkpoints_load(file: str) -> None:
    path = Path(os.environ["COMPRESSOR_DATA"]) / file
    assert load_checkpoint(build(file.split("-")[0]), path).entry == "state_dict"
