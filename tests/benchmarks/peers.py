"""What torch-pruning makes of a network, for comparison: its importances, spread uniformly or globally."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.structure import Groups

SAMPLES = 64
"""Images whose own gradients count."""


class CountedHessian(tp.importance.GroupHessianImportance):
    """The importance as it is meant: the released one forgets all samples but the last."""

    def accumulate_grad(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                square = parameter.grad.detach().square()
                self._accu_grad[parameter] = self._accu_grad.get(parameter, 0) + square
                self._counter[parameter] = self._counter.get(parameter, 0) + 1


PEERS: dict[str, Callable[[], tp.importance.Importance]] = {
    "random": tp.importance.RandomImportance,
    "L1": partial(tp.importance.GroupMagnitudeImportance, p=1),
    "L2": partial(tp.importance.GroupMagnitudeImportance, p=2),
    "LAMP": tp.importance.LAMPImportance,
    "FPGM": tp.importance.FPGMImportance,
    "BN scale": tp.importance.BNScaleImportance,
    "Taylor": tp.importance.GroupTaylorImportance,
    "Hessian (as released)": tp.importance.GroupHessianImportance,
    "Hessian": CountedHessian,
}


def gradients(model: nn.Module, images: Tensor, labels: Tensor) -> list[list[Tensor]]:
    """Gradients of the mean loss over a batch, and of the losses of single images."""
    model = copy.deepcopy(model)
    losses = F.cross_entropy(model(images), labels, reduction="none")
    parameters = list(model.parameters())
    wanted = (losses.mean(), *losses[:SAMPLES])
    return [list(torch.autograd.grad(loss, parameters, retain_graph=True)) for loss in wanted]


def cut(
    model: nn.Module,
    groups: Groups,
    example: Tensor,
    importance: Callable[[], tp.importance.Importance],
    grads: Sequence[Sequence[Tensor]],
    ratio: float,
    *,
    spread: bool,
    round_to: int | None = None,
) -> nn.Module:
    """A copy of the network without `ratio` of the channels of the groups, chosen by torch-pruning.

    Args:
        model: The dense network.
        groups: What may be cut: the channels that these groups own.
        example: An input.
        importance: Makes the importance.
        grads: From `gradients`.
        ratio: Share of the channels to remove.
        spread: Whether channels compete across layers.
        round_to: Widths are multiples of this.
    """
    torch.manual_seed(0)
    model, judge = copy.deepcopy(model), importance()
    if isinstance(judge, tp.importance.GroupHessianImportance):
        judge.zero_grad()
    for gradient in (*grads[1:], grads[0]):
        for parameter, g in zip(model.parameters(), gradient, strict=True):
            parameter.grad = g.clone()
        if isinstance(judge, tp.importance.GroupHessianImportance) and gradient is not grads[0]:
            judge.accumulate_grad(model)
    free = {layer for group in groups for layer in (*group.producers, *group.carriers)}
    ignored = [m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and n not in free]
    tp.pruner.BasePruner(
        model,
        example,
        judge,
        global_pruning=spread,
        pruning_ratio=ratio,
        ignored_layers=ignored,
        max_pruning_ratio=0.95,
        round_to=round_to,
    ).step()
    model.zero_grad()
    return model.eval()
