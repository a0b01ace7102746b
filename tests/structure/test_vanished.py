from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import exporters
from compressor import find_groups, load_compact, masked, save_compact, shrink, verify
from compressor.errors import InputError
from compressor.refit import refit
from compressor.structure import Groups, Plan
from compressor.structure.vanished import ConstantConv2d
from tests.structure.networks import randomised

NETWORKS = {
    "resnet18": (torchvision.models.resnet18, 64),
    "mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, 64),
}


def subject(name: str) -> tuple[nn.Module, Groups, torch.Tensor]:
    build, size = NETWORKS[name]
    torch.manual_seed(0)
    model = randomised(build())
    x = torch.randn(2, 3, size, size)
    return model, find_groups(model, x[:1]), x


def every_second(groups: Groups) -> Plan:
    gone = [group.name for group in groups if group.vanishes][::2]
    assert gone
    return Plan.of(groups, dict.fromkeys(gone, ()))


@pytest.mark.parametrize("name", NETWORKS)
def test_branches_vanish(name: str, tmp_path: Path) -> None:
    model, groups, x = subject(name)
    plan = every_second(groups)
    assert verify(model, plan, x) < 1e-9
    small = shrink(model, plan).eval()
    save_compact(small, plan, tmp_path)
    again = load_compact(tmp_path, model)
    with torch.no_grad():
        assert torch.equal(again(x), small(x))
    path = exporters.export_onnx(small, x, tmp_path / "small.onnx")
    dense = exporters.export_onnx(model, x, tmp_path / "dense.onnx")
    assert exporters.check_parity(small, path, x).max_rel < 1e-4
    few, many = exporters.count_nodes(path), exporters.count_nodes(dense)
    assert set(few) <= set(many) and few["Conv"] < many["Conv"]


class Branches(nn.Module):
    """A branch whose outputs are added, resized and added, pooled and added, taken as a gate, or concatenated."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, width = kind, 16 if kind == "beside" else 8
        self.stem, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.first, self.second = nn.Conv2d(6, 8, 1), nn.Conv2d(6, 8, 1)
        self.last, self.head = nn.Conv2d(width, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        inner = self.inner(x).relu()
        match self.kind:
            case "twice":
                x = x + self.first(inner) + self.second(inner)
            case "resized":
                x = x + F.interpolate(self.first(inner[:, :, ::2]), size=x.shape[2:], mode="bilinear")
            case "pooled":
                x = x + F.max_pool2d(self.first(inner), 3, 1, 1)
            case "gate":
                x = x * self.first(F.adaptive_avg_pool2d(inner, 1)).sigmoid()
            case "tokens":
                x = x + self.first(inner).flatten(2).transpose(1, 2).transpose(1, 2).reshape(x.shape)
            case "beside":
                x = torch.cat([x, self.first(inner)], 1)
            case "alone":
                x = self.second(self.first(inner).relu()[:, :6]) + x
        return self.head(self.last(x).mean((2, 3)))


@pytest.mark.parametrize("kind", ["twice", "resized", "pooled", "gate", "tokens"])
def test_what_a_vanished_branch_added_is_folded(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = randomised(Branches(kind)), torch.randn(2, 3, 8, 8)
    groups = find_groups(model, x)
    plan = Plan.of(groups, {"inner": ()})
    assert verify(model, plan, x) < 1e-9
    path = exporters.export_onnx(shrink(model, plan), x, tmp_path / "small.onnx")
    dense = exporters.export_onnx(model, x, tmp_path / "dense.onnx")
    assert exporters.check_parity(shrink(model, plan), path, x).max_rel < 1e-4
    few, many = exporters.count_nodes(path), exporters.count_nodes(dense)
    assert set(few) <= set(many) and few["Conv"] < many["Conv"]


@pytest.mark.parametrize("kind", ["beside", "alone"])
def test_what_would_leave_others_to_read_constants_does_not_vanish(kind: str) -> None:
    groups = find_groups(randomised(Branches(kind)), torch.randn(2, 3, 8, 8)).by_name()
    assert not groups["inner"].vanishes


def test_a_stream_that_all_depends_on_does_not_vanish() -> None:
    model, groups, x = subject("resnet18")
    assert {g.name for g in groups if g.vanishes} == {f"layer{i}.{j}.conv1" for i in (1, 2, 3, 4) for j in (0, 1)}
    with pytest.raises(InputError, match="at least one unit"):
        Plan.of(groups, {"conv1": ()})


def test_vanished_layers_are_constants_without_weights_and_the_rest_trains() -> None:
    model, groups, x = subject("resnet18")
    small = shrink(model, Plan.of(groups, {"layer2.1.conv1": ()}))
    first, second = (small.get_submodule(f"layer2.1.conv{i}") for i in (1, 2))
    assert isinstance(first, ConstantConv2d) and isinstance(second, ConstantConv2d)
    assert first.weight.numel() == second.weight.numel() == 0
    small.train()
    small(x).sum().backward()
    assert all(p.grad is not None for p in small.parameters() if p.requires_grad and p.numel() > 1)


def test_the_refit_gives_a_vanished_branch_its_mean() -> None:
    model, groups, x = subject("resnet18")
    images = [(torch.randn(16, 3, 64, 64),) for _ in range(2)]
    plan = Plan.of(groups, {"layer3.1.conv1": ()})
    fitted, _ = refit(model, plan, images, groups=groups)
    with torch.no_grad():
        dense = model(x)
        refitted = shrink(fitted, plan).eval()(x)
        with masked(model, plan):
            cut = model(x)
    assert (refitted - dense).abs().mean() < (cut - dense).abs().mean()


def test_a_plan_keeps_what_vanished(tmp_path: Path) -> None:
    _, groups, _ = subject("resnet18")
    plan = every_second(groups)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json").kept == plan.kept
