"""Groups whose channels a layer norm reads: cut only where asked for, and right up to what the norms compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig

import exporters
from compressor import Plan, find_groups, load_compact, masked, save_compact, shrink, verify
from compressor.refit import refit
from compressor.structure import Groups
from tests.structure.networks import randomised


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True, norm_first=True)
        self.embed, self.head = nn.Linear(64, 16), nn.Linear(16, 5)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x.flatten(2))).mean(1))


class Pool(nn.Module):
    """A residual block behind a norm of all channels and all pixels."""

    def __init__(self, affine: bool = True) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(1, 16, affine=affine)
        self.wide, self.narrow, self.head = nn.Conv2d(16, 24, 1), nn.Conv2d(24, 16, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.narrow(self.wide(self.norm(x)).relu())).mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: VisionTransformer(16, 8, 2, 2, 24, 40, num_classes=5),
    "convnext": lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], num_classes=5),
    "encoder": Encoder,
    "pool": Pool,
    "swin": lambda: SwinTransformer([2, 2], 8, [2, 1], [2, 4], [2, 2], num_classes=5),
}


@pytest.fixture(params=NETWORKS)
def subject(request: pytest.FixtureRequest) -> tuple[nn.Module, Groups, Tensor]:
    torch.manual_seed(0)
    model, x = randomised(NETWORKS[request.param]()), torch.randn(2, 3, 16, 16)
    for weight in filter(lambda p: p.dim() > 1, model.parameters()):
        nn.init.normal_(weight, std=0.2)  # some are zero at first
    if request.param == "encoder":
        x = torch.randn(2, 3, 8, 8)
    return model, find_groups(model, x, inexact=True), x


def test_norms_without_weights_are_named() -> None:
    groups = find_groups(Pool(affine=False), torch.randn(2, 3, 8, 8), inexact=True)
    assert [g.name for g in groups] == ["wide"]
    assert any("norm, which has no weights" in skipped.reason for skipped in groups.skipped)


def inexact(groups: Groups) -> list[str]:
    return [group.name for group in groups if group.inexact]


def test_they_are_left_alone_unless_asked_for(subject: tuple[nn.Module, Groups, Tensor]) -> None:
    model, groups, x = subject
    exact = find_groups(model, x)
    assert inexact(groups)
    assert not inexact(exact)
    assert {group.name for group in exact} == {group.name for group in groups if not group.inexact}
    assert any("normalised" in skipped.reason for skipped in exact.skipped)


def test_the_shrunk_network_is_the_masked_one_with_norms_of_what_is_kept(
    subject: tuple[nn.Module, Groups, Tensor], tmp_path: Path
) -> None:
    model, groups, x = subject
    plan = Plan.uniform(groups, 0.5)
    assert verify(model, plan, x) < 1e-9
    without = [replace(p, group=replace(p.group, inexact=False)) for p in plan.groups]
    assert verify(model, Plan(tuple(without)), x) > 1e-3
    small = shrink(model, plan)
    save_compact(small, plan, tmp_path)
    assert inexact_of(Plan.load(tmp_path / "plan.json")) == inexact(groups)
    assert torch.equal(load_compact(tmp_path, model)(x), small(x))
    path = exporters.export_onnx(small, x, tmp_path / "small.onnx")
    assert exporters.check_parity(small, path, x).max_rel < 1e-4
    again = find_groups(small, x, inexact=True)
    assert {g.name: g.size for g in again if g.inexact} == {n: len(plan.kept[n]) for n in inexact(groups)}


def inexact_of(plan: Plan) -> list[str]:
    return [planned.group.name for planned in plan.groups if planned.group.inexact]


def test_masked_networks_are_right_with_gradients_and_without(subject: tuple[nn.Module, Groups, Tensor]) -> None:
    model, groups, x = subject
    model, x = model.double(), x.double()
    plan = Plan.uniform(groups, 0.5)
    small = shrink(model, plan)
    with masked(model, plan):
        for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with mode():
                assert torch.allclose(model(x), small(x), atol=1e-9)
        model(x).square().sum().backward()
    small(x).square().sum().backward()
    kept = {group.name: plan.kept[group.name] for group in groups if group.inexact}
    for s in (s for p in plan.groups if p.group.name in kept for s in p.group.slices):
        whole, cut = model.get_parameter(s.tensor), small.get_parameter(s.tensor)
        if whole.dim() == 1 and s.role == "carrier":
            assert whole.grad is not None and cut.grad is not None
            assert torch.allclose(whole.grad[whole.grad != 0], cut.grad[cut.grad != 0], atol=1e-9)


def test_the_refit_sees_the_norms_of_what_is_kept(subject: tuple[nn.Module, Groups, Tensor]) -> None:
    model, groups, x = subject
    images, unseen = torch.randn(256, *x.shape[1:]), torch.randn(64, *x.shape[1:])
    plan = Plan.uniform(groups, 0.75)
    fitted, done = refit(model, plan, [(images,)], groups=groups)
    with torch.no_grad():
        wrong, dense = ((shrink(m, plan)(unseen) - model(unseen)).square().mean() for m in (fitted, model))
    assert any(entry.applied for entry in done)
    assert wrong < 0.9 * dense
