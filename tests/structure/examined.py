"""What the tests of the structure share: networks with their groups, and plans to try on them."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchvision.models.swin_transformer import ShiftedWindowAttention

from compressor.structure import Groups, Plan, find_groups, masked
from tests.structure.networks import Inputs, build, inputs_of, randomised

EXACT = 1e-9


@dataclass(frozen=True)
class Examined:
    """A network of the collection, one input, and its groups. Shared between tests: nobody changes it."""

    model: nn.Module
    inputs: Inputs
    groups: Groups


@cache
def examined(name: str) -> Examined:
    model, inputs = build(name), inputs_of(name)
    return Examined(model, inputs, find_groups(model, inputs))


CIFAR = runpy.run_path(str(Path(__file__).parents[2] / "samples/cifar10-resnet/model.py"))
PUBLISHED: dict[str, Callable[[], nn.Module]] = {
    "cifar_resnet20": CIFAR["resnet20"],
    "cifar_resnet56": CIFAR["resnet56"],
    "vit_b_32": partial(torchvision.models.vit_b_32, image_size=64),
}


@cache
def published(name: str) -> Examined:
    """A network as torchvision has it, with parameters of which none is close to zero, on small pictures."""
    torch.manual_seed(0)
    model = randomised(PUBLISHED.get(name, partial(torchvision.models.get_model, name, weights=None))())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().max() < 0.01:
                parameter.uniform_(-0.5, 0.5)
    size = 32 if name.startswith("cifar") else 64
    x = torch.randn(2, 3, size, size)
    return Examined(model, (x,), find_groups(model, x[:1]))


def random_plan(groups: Groups, seed: int) -> Plan:
    """Any number of units of every group, any units."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for group in groups:
        order = group.balanced(torch.randperm(group.size, generator=generator).tolist())
        steps = int(torch.randint(1, group.size // group.step + 1, (1,), generator=generator))
        kept[group.name] = order[: steps * group.step]
    return Plan.of(groups, kept)


def plans(groups: Groups) -> list[Plan]:
    """Half of everything, and a few plans at random."""
    return [Plan.uniform(groups, 0.5), *(random_plan(groups, seed) for seed in range(4))]


def tensors(outputs: Any) -> list[Tensor]:
    """All tensors that a network returned."""
    leaves = tree_leaves(outputs)
    leaves += [
        t for leaf in leaves if not isinstance(leaf, Tensor) and hasattr(leaf, "__dict__") for t in vars(leaf).values()
    ]
    found = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    assert found
    return found


def run(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    with torch.no_grad():
        return tensors(model(*inputs))


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    """Equal to the last bit."""
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def distance(left: list[Tensor], right: list[Tensor]) -> float:
    """Largest difference, relative to the size of the output it is in."""
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in zip(left, right, strict=True))


def state(model: nn.Module) -> list[Any]:
    """All that a function could change by mistake."""
    found: list[Any] = []
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found += [name, id(tensor), tensor.tolist(), tensor.requires_grad, tensor.grad is None]
    for name, module in model.named_modules():
        hooks = [len(getattr(module, h)) for h in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
        found += [name, type(module), module.training, hooks, repr(module)]
    return found


@contextmanager
def zeroed_inputs(model: nn.Module, plan: Plan) -> Iterator[None]:
    """Zero the dropped channels where modules take them in; other consumers are masked by their weights.

    An independent left side of "mask = shrink": it knows modules and channel axes, and nothing of weights.
    """
    modules, handles, others = dict(model.named_modules()), [], []
    for planned in plan.groups:
        for cut in planned.group.slices:
            module = modules.get(cut.layer)
            if cut.role != "consumer" or not planned.dropped:
                continue
            owner = modules.get(cut.layer.rpartition(".")[0])
            if _takes_channels(module, owner) and cut.tensor.endswith(".weight"):
                gone = [c for u in planned.dropped for c in cut.coordinates[u]]
                axis = -1 if isinstance(module, nn.Linear) else 1
                handles.append(module.register_forward_pre_hook(_zeroing(gone, axis)))
            else:
                others.append(planned.group.name)
    try:
        with masked(model, plan.without(p.group.name for p in plan.groups if p.group.name not in others)):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _takes_channels(module: nn.Module | None, owner: nn.Module | None) -> bool:
    """True for layers that are called, so that hooks see their inputs; some owners take only the weights of theirs."""
    called = not isinstance(owner, nn.MultiheadAttention | ShiftedWindowAttention)
    return called and isinstance(module, nn.Linear | nn.modules.conv._ConvNd)


def _zeroing(channels: list[int], axis: int) -> Any:
    def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = arguments[0].clone()
        return (x.index_fill(axis, torch.tensor(channels), 0.0), *arguments[1:])

    return hook
