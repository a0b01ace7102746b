"""How the groups that cannot be cut are told from the others, and at what expense."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.shufflenetv2 import ShuffleNetV2

from compressor.structure import Plan, find_groups
from compressor.structure.grouping import validation as trial
from compressor.structure.surgery.shrink import preview


class Counted(ShuffleNetV2):
    """A shuffle network, most of whose groups cannot be cut, that counts how often it runs."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        type(self).passes += 1
        result: Tensor = super().forward(x)
        return result


def test_groups_that_fail_are_found_in_few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts: list[frozenset[tuple[str, tuple[int, ...]]]] = []

    def noted(model: nn.Module, plan: Plan) -> nn.Module:
        cuts.append(frozenset((p.group.name, p.kept) for p in plan.groups if p.dropped))
        return preview(model, plan)

    monkeypatch.setattr(trial, "preview", noted)
    monkeypatch.setattr(Counted, "passes", 0)
    torch.manual_seed(0)
    groups = find_groups(Counted([4, 8, 4], [8, 8, 16, 32, 16], num_classes=3), torch.rand(1, 3, 32, 32))
    failing = [layer for skipped in groups.skipped for layer in skipped.layers if "its width" in skipped.reason]
    assert (len(groups), len(failing)) == (18, 25)
    assert len(cuts) == len(set(cuts)), "the same cut was tried twice"
    assert Counted.passes <= 200


class Narrow(nn.Module):
    """Fails where `first` is cut at all, and where `second` has a single channel left."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.head = nn.Conv2d(8, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x)).unflatten(1, (2, 4)).flatten(1, 2)
        x = F.relu(self.second(x))
        if x.shape[1] == 1:
            raise ValueError("a single channel is not enough")
        return self.head(F.relu(self.third(x)).mean((2, 3)))


def test_what_fails_in_a_later_way_of_cutting_is_found_as_well() -> None:
    groups = find_groups(Narrow(), torch.randn(2, 3, 8, 8))
    reasons = {layer: skipped.reason for skipped in groups.skipped for layer in skipped.layers}
    assert [group.name for group in groups] == ["third"]
    assert "unflatten" in reasons["first"] and "not enough" in reasons["second"]


class Counting(nn.Module):
    """Writes a buffer in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 4)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.head(F.relu(self.first(x)))


def test_a_preview_shares_what_is_not_cut_and_leaves_the_network_as_it_was() -> None:
    model = Counting().eval()
    groups = find_groups(model, torch.randn(2, 6))
    weight = model.first.weight.detach().clone()
    small = preview(model, Plan.uniform(groups, 0.5))
    assert small(torch.randn(2, 6)).shape == (2, 4) and small.first.out_features == 4
    assert small.head.bias is model.head.bias
    assert model.passes == 0 and torch.equal(model.first.weight, weight)
