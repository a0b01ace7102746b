"""Vanished branches that add nothing: their constants are taken away, and with them the operations that add them.

What a vanished branch leaves behind is a constant, and adding it takes an operation of its own: as long as a small
convolution, 2 % of the time of a ResNet-20 each. The layers behind that are solved again make up for it as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn

from compressor.structure.groups import Groups
from compressor.structure.plan import Plan
from compressor.structure.tracing.couplings import Couplings


def shifts_of(model: nn.Module, couplings: Couplings) -> dict[str, tuple[str, ...]]:
    """What `Groups.shifts` says of a network."""
    parameters = {name for name, _ in model.named_parameters()}
    runs, uses = Counter(call.weight for call in couplings.calls), Counter(couplings.norms.values())
    found: dict[str, tuple[str, ...]] = {}
    for call in couplings.calls:
        if call.weight not in couplings.summed or runs[call.weight] > 1:
            continue
        norm = couplings.norms.get(call.layer)
        if norm is None:
            found[call.weight] = () if call.bias is None else (call.bias,)
        elif uses[norm] == 1 and {f"{norm}.weight", f"{norm}.bias"} <= parameters:
            found[call.weight] = (f"{norm}.weight", f"{norm}.bias")
    return found


def silence(model: nn.Module, plan: Plan, groups: Groups) -> set[str]:
    """Let branches that vanish add nothing, in place.

    Args:
        model: The network, of its original widths or shrunk.
        plan: What is kept.
        groups: What `find_groups` says of the network of the original widths.

    Returns:
        The weights of the layers that add nothing now.
    """
    silent = set(_silent(plan, groups))
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for weight in silent:
            for name in groups.shifts[weight]:
                parameters[name].zero_()
    return silent


def keep_silent(model: nn.Module, plan: Plan, groups: Groups) -> None:
    """Take from training what makes silent branches silent, in place; branches that add something are left alone."""
    parameters = dict(model.named_parameters())
    for weight in _silent(plan, groups):
        own = [parameters[name] for name in groups.shifts[weight]]
        if not any(bool(parameter.any()) for parameter in own):
            for parameter in own:
                parameter.requires_grad_(False)


def _silent(plan: Plan, groups: Groups) -> Iterator[str]:
    gone = [planned.group for planned in plan.groups if planned.vanished]
    yield from {s.tensor for g in gone for s in g.slices if s.role == "consumer" and s.tensor in groups.shifts}
