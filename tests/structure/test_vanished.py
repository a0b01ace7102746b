from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import exporters
from compressor import find_groups, load_compact, masked, save_compact, shrink, verify
from compressor.errors import InputError
from compressor.refit import refit
from compressor.structure import Groups, Plan
from compressor.structure.surgery.zero_width import ConstantConv2d
from tests.structure.examined import published
from tests.structure.networks import randomised

VANISHING = {
    "cifar_resnet20": [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)],
    "cifar_resnet56": [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(9)],
    "resnet18": [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3, 4) for block in range(2)],
    "resnet50": [f"layer{s}.{block}.conv2" for s, blocks in enumerate((3, 4, 6, 3), 1) for block in range(blocks)],
    "mobilenet_v2": [f"features.{n}.conv.0.0" for n in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)],
    "mobilenet_v3_small": [
        *(f"features.{n}.block.0.0" for n in (3, 5, 6, 8, 10, 11)),
        *(f"features.{n}.block.{1 if n == 1 else 2}.fc1" for n in (1, *range(4, 12))),
    ],
    "convnext_tiny": [
        f"features.{s}.{n}.block.3" for s, blocks in ((1, 3), (3, 3), (5, 9), (7, 3)) for n in range(blocks)
    ],
    "vit_b_32": [f"encoder.layers.encoder_layer_{n}.mlp.0" for n in range(12)],
    "densenet121": [],
}
"""What vanishes in real networks: what lies inside a residual branch, right before its last layer, and between the two
layers of a gate. Not what lies before that (another layer of the branch would read a constant), blocks without a
shortcut, streams, and what is concatenated; not the heads of torchvision's attention either, of which one function
reads the last weight."""


def subject(name: str) -> tuple[nn.Module, Groups, torch.Tensor]:
    known = published(name)
    return known.model, known.groups, known.inputs[0]


def every_second(groups: Groups) -> Plan:
    gone = [group.name for group in groups if group.vanishes][::2]
    assert gone
    return Plan.of(groups, dict.fromkeys(gone, ()))


@pytest.mark.parametrize("name", VANISHING)
def test_it_is_known_which_groups_of_a_network_vanish(name: str) -> None:
    _, groups, _ = subject(name)
    assert {group.name for group in groups if group.vanishes} == set(VANISHING[name])
    assert groups.may_vanish(VANISHING[name])


def nothing_new(few: Mapping[str, int], many: Mapping[str, int]) -> bool:
    """No kind of operator, and not one more of any kind."""
    return all(number <= many.get(operator, 0) for operator, number in few.items())


@pytest.mark.parametrize("name", ["cifar_resnet20", "resnet18", "mobilenet_v3_small", "convnext_tiny"])
def test_what_vanishes_is_exact_and_adds_nothing_to_the_file(name: str, tmp_path: Path) -> None:
    model, groups, x = subject(name)
    dense = exporters.count_nodes(exporters.export_onnx(model, x, tmp_path / "dense.onnx"))
    alone = [["layer2.0.conv1"]] if name == "cifar_resnet20" else []
    for gone in [VANISHING[name], *alone]:
        plan = Plan.of(groups, dict.fromkeys(gone, ()))
        assert verify(model, plan, x) < 1e-9
        small = shrink(model, plan).eval()
        path = exporters.export_onnx(small, x, tmp_path / "small.onnx")
        assert exporters.check_parity(small, path, x).max_rel < 1e-4
        assert nothing_new(exporters.count_nodes(path), dense)
        assert sum(exporters.count_nodes(path).values()) < sum(dense.values())


def test_what_vanished_is_built_again_from_the_plan(tmp_path: Path) -> None:
    model, groups, x = subject("mobilenet_v3_small")
    plan = every_second(groups)
    small = shrink(model, plan).eval()
    save_compact(small, plan, tmp_path)
    with torch.no_grad():
        assert torch.equal(load_compact(tmp_path, model)(x), small(x))


FOLDED = ["twice", "resized", "pooled", "gate", "tokens", "sliced", "rolled", "halves", "normed", "means"]


class Branches(nn.Module):
    """A branch whose outputs are added, first resized, pooled or normed, taken as a gate, concatenated, and so on."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, width = kind, {"beside": 16, "halves": 4}.get(kind, 8)
        self.stem, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.first, self.second = nn.Conv2d(6, 8, 1), nn.Conv2d(6, 8, 1)
        self.norm, self.depthwise = nn.LayerNorm(8), nn.Conv2d(8, 8, 3, padding=1, groups=8)
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
            case "sliced":
                x = x[:, :, ::2, 1:] + self.first(inner)[:, :, ::2, :-1]
            case "rolled":
                x = x + self.first(inner).roll((1, -2, 3), (2, 3, 1))
            case "halves":
                one, other = self.first(inner).chunk(2, 1)
                x = x[:, :4] + one * other.sigmoid()
            case "normed":
                x = x + self.norm(self.first(inner).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            case "depthwise":
                x = x + self.depthwise(self.first(inner))
            case "framed":
                x = x + F.avg_pool2d(self.first(inner), 3, 1, 1)
            case "means":
                x = x + self.first(inner).mean((2, 3), keepdim=True) + self.second(inner).mean((2, 3))[:, :, None, None]
            case "beside":
                x = torch.cat([x, self.first(inner)], 1)
            case "alone":
                x = self.second(self.first(inner).relu()[:, :6]) + x
        return self.head(self.last(x).mean((2, 3)))


@pytest.mark.parametrize("kind", FOLDED)
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
    assert nothing_new(few, many) and few["Conv"] < many["Conv"]


@pytest.mark.parametrize("kind", ["beside", "alone", "depthwise", "framed"])
def test_what_would_leave_others_to_read_constants_does_not_vanish(kind: str) -> None:
    groups = find_groups(randomised(Branches(kind)), torch.randn(2, 3, 8, 8)).by_name()
    assert not groups["inner"].vanishes


def test_a_stream_that_all_depends_on_does_not_vanish() -> None:
    _, groups, _ = subject("resnet18")
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
