"""Distillation of stage features."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compressor.recipe import FinetuneSection
from compressor.training.features import attention_loss, stage_maps
from compressor.training.loop import finetune
from tests.training.conftest import Tiny


def two_stages(width: int) -> nn.Sequential:
    torch.manual_seed(width)
    first = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
    return nn.Sequential(first, nn.Conv2d(width, width, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_the_last_output_of_every_size_is_seen_while_watching() -> None:
    model, x = two_stages(4), torch.randn(2, 1, 8, 8)
    with stage_maps(model) as maps:
        model(x)
        assert list(maps) == [(8, 8), (4, 4)]
        assert torch.equal(maps[8, 8], model[0](x))
    maps.clear()
    model(x)
    assert not maps


def test_networks_of_other_widths_compare_by_where_they_look() -> None:
    narrow, wide = torch.rand(3, 2, 4, 4), torch.rand(3, 7, 4, 4)
    assert float(attention_loss({(4, 4): narrow}, {(4, 4): wide})) > 0
    assert float(attention_loss({(4, 4): narrow}, {(4, 4): 5 * narrow.repeat(1, 3, 1, 1)})) == pytest.approx(
        0, abs=1e-6
    )
    assert float(attention_loss({(4, 4): narrow}, {(8, 8): wide})) == 0


def test_the_loss_is_the_squared_distance_of_maps_of_length_one() -> None:
    left, right = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
    assert float(attention_loss({(1, 2): left}, {(1, 2): right})) == pytest.approx(2)


def test_training_brings_the_attention_nearer(
    make_loader: Callable[[], DataLoader], settings: FinetuneSection, images: Tensor
) -> None:
    teacher = Tiny(seed=3).eval()

    def distance(weight: float) -> float:
        model = Tiny()
        changes = {"epochs": 8, "distill_features": weight, "distill_weight": 0.0}
        finetune(model, teacher, make_loader(), settings.model_copy(update=changes))
        assert not any(module._forward_hooks for net in (model, teacher) for module in net.modules())
        with torch.no_grad(), stage_maps(model.eval()) as own, stage_maps(teacher) as target:
            model(images), teacher(images)
            return float(attention_loss(own, target))

    assert distance(10.0) < 0.7 * distance(0.0)
