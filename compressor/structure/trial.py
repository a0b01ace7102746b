"""A trial of every group before anybody relies on it: cut half, and compare with the masked network."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from compressor.structure.couplings import containers_training
from compressor.structure.groups import ChannelGroup
from compressor.structure.mask import masked
from compressor.structure.plan import Plan
from compressor.structure.proof import TOLERANCE, difference
from compressor.structure.shrink import shrink
from compressor.structure.watch import evaluating

LARGE = 50_000_000


def failing_groups(model: nn.Module, groups: Sequence[ChannelGroup], inputs: tuple[Any, ...]) -> dict[str, str]:
    """Names of the groups for which the shrunk network is not the masked one, with the reason.

    Faults are found by bisection over families of groups: layers whose names differ in numbers only. A family of which the first
    and the last fail by themselves is given up as a whole. Weights are shaken first, so that equal or zero weights cannot hide a
    wrong index.

    Args:
        model: The network; it is left as it was.
        groups: The groups to try.
        inputs: What `model(*inputs)` takes.
    """
    size = sum(p.numel() for p in model.parameters())
    dtype = torch.float32 if size > LARGE else torch.float64
    shaken = _shaken(model, dtype)
    exact = tree_map(lambda v: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v, inputs)
    families: dict[Any, list[ChannelGroup]] = defaultdict(list)
    for group in groups:
        families[_family(group)].append(group)
    with evaluating(shaken):
        return _Trial(shaken, exact, TOLERANCE[dtype]).failing(list(families.values()))


def _family(group: ChannelGroup) -> Any:
    layers = sorted({re.sub(r"\d+", "", s.layer) for s in group.slices})
    return tuple(layers), len(group.slices[0].coordinates[0]) > 1


def _shaken(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    shaken = copy.deepcopy(model).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*shaken.parameters(), *shaken.buffers()]:
            if tensor.is_floating_point() and tensor.numel():
                scale = 0.1 * tensor.abs().mean().clamp_min(0.01)
                tensor.add_(torch.rand(tensor.shape, generator=generator, dtype=dtype).to(tensor.device) * scale)
    return shaken


class _Trial:
    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], tolerance: float) -> None:
        self.model, self.inputs, self.tolerance = model, inputs, tolerance

    def failing(self, families: list[list[ChannelGroup]]) -> dict[str, str]:
        groups = [g for family in families for g in family]
        reason = self._fault(groups)
        if reason is None:
            return {}
        if len(groups) == 1:
            return {groups[0].name: reason}
        if len(families) == 1:
            first, last = self._fault(groups[:1]), self._fault(groups[-1:])
            if first is not None and last is not None:
                return dict.fromkeys((g.name for g in groups), first)
            families = [[g] for g in groups]
        middle = len(families) // 2
        bad = self.failing(families[:middle]) | self.failing(families[middle:])
        if not bad:
            return {g.name: f"cut together with others, {reason}" for g in groups}
        rest = [kept for kept in ([g for g in family if g.name not in bad] for family in families) if kept]
        return bad | (self.failing(rest) if rest else {})

    def _fault(self, groups: list[ChannelGroup]) -> str | None:
        """What is wrong when half of the units of all these groups go, or None."""
        plan = Plan.of(groups, {g.name: _half(g) for g in groups})
        try:
            small = shrink(self.model, plan)
            actual = small(*self.inputs)
            with containers_training(small):
                small(*self.inputs)
        except Exception as error:  # noqa: BLE001 - whatever the user's forward() raises is the reason
            problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return f"the network's code relies on its width: {problem}"
        with masked(self.model, plan):
            wrong = difference(self.model(*self.inputs), actual)
        if wrong <= self.tolerance:
            return None
        return f"the shrunk network would differ from the masked one by {wrong:.0e} (relative)"


def _half(group: ChannelGroup) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(group.size)
    order = torch.randperm(group.size, generator=generator).tolist()
    return group.balanced(order)[: max(1, group.size // group.step // 2) * group.step]
