"""The second-order estimate of a change's loss, against the loss."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressor.selection.fisher import divergences
from compressor.tasks.softmax import TEMPERATURE
from tests.networks import INPUT, build


@torch.no_grad()
def true_divergence(model: nn.Module, other: nn.Module, images: torch.Tensor) -> float:
    own, dense = ((m(images) / TEMPERATURE).log_softmax(1) for m in (other, model))
    return TEMPERATURE**2 * float(F.kl_div(own, dense, log_target=True, reduction="batchmean"))


@pytest.mark.parametrize("kind", ["plain", "residual", "concatenated"])
def test_small_changes_cost_what_they_do(kind: str) -> None:
    model = build(kind).double()
    torch.manual_seed(0)
    images = torch.randn(256, *INPUT, dtype=torch.float64)
    names = [n for n, t in model.named_parameters() if t.dim() > 1][:3]
    means = [n for n, _ in model.named_buffers() if n.endswith("running_mean")][:2]
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    changes = [{name: 0.005 * torch.randn_like(tensors[name])} for name in (*names, *means)]
    changes.append({name: change[name] for change in changes for name in change})
    for change, found in zip(changes, divergences(model, changes, [(images,)]), strict=True):
        other = copy.deepcopy(model)
        for name, values in change.items():
            dict([*other.named_parameters(), *other.named_buffers()])[name].data.add_(values)
        assert found == pytest.approx(true_divergence(model, other, images), rel=0.35)


def test_no_change_costs_nothing_and_the_model_stays_as_it_was() -> None:
    model = build("residual")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name = next(n for n, t in model.named_parameters() if t.dim() > 1)
    nothing = {name: torch.zeros_like(before[name])}
    assert divergences(model, [nothing], [(torch.randn(4, *INPUT),)]) == [0.0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


class Squeezing(nn.Module):
    """Takes a batch of one for no batch, as code with a bare `squeeze` does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).mean((2, 3), keepdim=True).squeeze())


@pytest.mark.parametrize("number", [2, 5])
def test_no_batch_holds_a_single_image(number: int) -> None:
    model = Squeezing().eval()
    change = {"conv.weight": torch.ones_like(model.conv.weight)}
    assert divergences(model, [change], [(torch.randn(number, 3, 8, 8),)])[0] > 0
