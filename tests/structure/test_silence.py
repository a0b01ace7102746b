"""Branches that vanish add nothing after the refit, and cost nothing in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import exporters
from compressor import Plan, find_groups, load_compact, save_compact, shrink
from compressor.refit import refit
from compressor.structure.surgery.silence import keep_silent, silence
from tests.structure.examined import published
from tests.structure.networks import randomised

IMAGES = [(torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)]


class Branches(nn.Module):
    """Residual branches whose ends are read in different ways, each of them a layer named after that."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.ModuleDict({name: nn.Conv2d(8, 6, 1) for name in WAYS})
        self.last = nn.ModuleDict({name: nn.Conv2d(6, 8, 1, bias=name != "bare") for name in WAYS})
        self.norm, self.scale = nn.BatchNorm2d(8), nn.Parameter(torch.randn(8, 1, 1))
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        ends = {name: self.last[name](self.first[name](x).relu()) for name in WAYS}
        x = x + ends["plain"]
        x = (self.norm(ends["normed"]) + x).relu()
        x = x - self.scale * F.silu(ends["scaled"])
        x = x + ends["bare"]
        x = x * ends["gate"].sigmoid()
        x = x + ends["twice"] + ends["twice"].sigmoid()
        return self.head(x.mean((2, 3)))


WAYS = ("plain", "normed", "scaled", "bare", "gate", "twice")


def branches() -> nn.Module:
    return randomised(Branches())


def test_only_what_is_just_added_to_something_can_be_silent() -> None:
    groups = find_groups(branches(), IMAGES[0])
    found = {name: shifts for name, shifts in groups.shifts.items() if name.startswith("last.")}
    assert found == {
        "last.plain.weight": ("last.plain.bias",),
        "last.normed.weight": ("norm.weight", "norm.bias"),
        "last.scaled.weight": ("last.scaled.bias",),
        "last.bare.weight": (),
    }


NETWORKS = {
    "cifar_resnet20": 9,
    "resnet18": 8,
    "resnet50": 16,
    "mobilenet_v2": 10,
    "mobilenet_v3_small": 6,
    "convnext_tiny": 18,
    "vit_b_32": 12,
}
"""Groups whose branch can be silent: all residual ones that vanish, but no gate."""


@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_fall_silent_where_a_branch_vanishes(name: str) -> None:
    groups = published(name).groups
    vanishing = [group for group in groups if group.vanishes]
    ends = [{s.tensor for s in group.slices if s.role == "consumer"} for group in vanishing]
    assert sum(not end.isdisjoint(groups.shifts) for end in ends) == NETWORKS[name]


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, Plan, nn.Module]:
    """ResNet-20, a plan by which five of its blocks vanish, and what the refit makes of it."""
    known = published("cifar_resnet20")
    model = randomised(known.model)
    plan = Plan.of(known.groups, dict.fromkeys(GONE, ()))
    images = [(torch.randn(16, *known.inputs[0].shape[1:], generator=torch.Generator().manual_seed(0)),)]
    return model, plan, shrink(refit(model, plan, images, groups=known.groups)[0], plan)


GONE = ["layer1.0.conv1", "layer1.2.conv1", "layer2.0.conv1", "layer2.1.conv1", "layer3.2.conv1"]


def test_the_file_has_no_trace_of_a_silent_block(resnet: tuple[nn.Module, Plan, nn.Module], tmp_path: Path) -> None:
    _, _, small = resnet
    inputs = torch.randn(2, 3, 32, 32)
    file = exporters.export_onnx(small, inputs, tmp_path / "small.onnx")
    nodes = exporters.count_nodes(file)
    left = 9 - len(GONE)
    assert nodes["Conv"] == 1 + 2 * left
    assert nodes["Add"] == left
    assert nodes["Relu"] == 1 + 2 * left  # none after the shortcut of a block that is gone
    assert exporters.check_parity(small, file, inputs).max_rel < 1e-5


def test_silent_blocks_stay_silent_while_they_train(resnet: tuple[nn.Module, Plan, nn.Module]) -> None:
    _, plan, small = resnet
    groups = published("cifar_resnet20").groups
    keep_silent(small, plan, groups)
    optimizer = torch.optim.SGD([p for p in small.parameters() if p.requires_grad], lr=0.1, weight_decay=1e-2)
    small.train()
    for _ in range(3):
        small(torch.randn(8, 3, 32, 32)).square().mean().backward()
        optimizer.step()
    small.eval()
    gone = {name.removesuffix("conv1") + "bn2" for name in GONE}
    norms = {name: module for name, module in small.named_modules() if name.endswith("bn2")}
    assert gone < norms.keys()
    for name, module in norms.items():
        assert bool(module.bias.any()) != (name in gone), name


def test_branches_that_add_something_are_trained(resnet: tuple[nn.Module, Plan, nn.Module]) -> None:
    model, plan, _ = resnet
    small = shrink(model, plan)  # not refitted: what vanished adds a constant
    keep_silent(small, plan, published("cifar_resnet20").groups)
    assert all(p.requires_grad for name, p in small.named_parameters() if "bn" in name)


def test_a_silent_network_is_saved_and_built(resnet: tuple[nn.Module, Plan, nn.Module], tmp_path: Path) -> None:
    model, plan, small = resnet
    save_compact(small, plan, tmp_path)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(load_compact(tmp_path, model)(x), small.eval()(x))


def test_silence_is_the_network_without_the_branch() -> None:
    model = branches()
    groups = find_groups(model, IMAGES[0])
    plan = Plan.of(groups, {"first.normed": (), "first.plain": (), "first.gate": ()})
    assert silence(small := shrink(model, plan), plan, groups) == {"last.normed.weight", "last.plain.weight"}
    x = IMAGES[0][0]
    with torch.no_grad():
        for name in ("plain", "normed"):
            model.first[name].weight.zero_(), model.first[name].bias.zero_()  # type: ignore[union-attr]
        model.last["plain"].bias.zero_(), model.norm.weight.zero_(), model.norm.bias.zero_()  # type: ignore[union-attr, index]
        model.last["gate"].weight.zero_()  # type: ignore[union-attr, index]
        assert torch.allclose(small(x), model(x), atol=1e-6)


def test_too_few_images_leave_the_constants() -> None:
    model = branches()
    groups = find_groups(model, IMAGES[0])
    plan = Plan.of(groups, {"first.plain": ()})
    fitted, _ = refit(model, plan, [(IMAGES[0][0][:4],)], groups=groups)
    assert fitted.get_submodule("last.plain").bias.any()  # type: ignore[operator, union-attr]
