"""What could be cut from a network, and how far."""

from __future__ import annotations

from math import lcm

from compressor.budget.allocate import narrowest
from compressor.budget.costs.base import CostModel
from compressor.budget.costs.measure import measure_cost
from compressor.budget.costs.tensor_cost import ProductCost
from compressor.budget.latency.model import Latency
from compressor.budget.targets.base import make_cost_model
from compressor.pipeline.loading import LoadedModel
from compressor.report.schema import Group, Inspection, Reach
from compressor.structure import ChannelGroup, Plan, shrink
from compressor.support import plugins

WORTHWHILE = 0.005
"""Share of the dense latency that a width must save over every wider one."""


def inspect_model(loaded: LoadedModel, multiple_of: int = 1, latency: Latency | None = None) -> Inspection:
    """Return every channel group with its share of the network, and what is left alone.

    Args:
        loaded: The network.
        multiple_of: Kept widths must be multiples of this.
        latency: Milliseconds on a device, where there is a table.
    """
    costs = {
        kind: make_cost_model(kind, loaded.model, loaded.groups)
        for kind in plugins.discover("compressor.budget.costs", ProductCost)
    }

    def reach(kind: str, group: ChannelGroup) -> float:
        return -costs[kind].change({}, group.name, fewest(group)) / getattr(loaded.cost, kind)

    def fewest(group: ChannelGroup) -> int:
        return 0 if group.vanishes else min(group.size, lcm(group.step, multiple_of))

    groups = [
        Reach(
            name=group.name,
            layers=layers(group),
            size=group.size,
            step=group.step,
            params=reach("params", group),
            macs=reach("macs", group),
            ms=-latency.change({}, group.name, fewest(group)) if latency else None,
            useful=useful_widths(latency, group) if latency else [],
            inexact=group.inexact,
        )
        for group in loaded.groups
    ]
    least = {kind: narrowest(loaded.groups, cost, multiple_of=multiple_of) for kind, cost in costs.items()}
    smallest = {kind: cost.total(least[kind]) / cost.dense for kind, cost in costs.items()}
    narrow = Plan.of(loaded.groups, {g.name: g.balanced(range(g.size))[: least["macs"][g.name]] for g in loaded.groups})
    smallest["macs"] = measure_cost(shrink(loaded.model, narrow), loaded.inputs).macs / loaded.cost.macs
    fastest = narrowest(loaded.groups, latency, multiple_of=multiple_of) if latency else None
    return Inspection(
        params=loaded.cost.params,
        macs=loaded.cost.macs,
        groups=groups,
        untouched=untouched(loaded),
        smallest=smallest,
        layers_ms=latency.by_layer({}) if latency else {},
        fastest=latency.dense / latency.total(fastest) if latency and fastest else None,
    )


def useful_widths(latency: CostModel, group: ChannelGroup) -> list[int]:
    """Return the widths below the full one at which no wider one is as fast, all other groups being whole."""
    step = group.step
    if isinstance(latency, Latency):
        stairs = latency.staircase
        step = lcm(step, stairs.align if stairs.align > 1 else stairs.block)
    widths = [*([0] if group.vanishes else []), *range(step, group.size, step), group.size]
    changes, best, useful = latency.changes({}, group.name, widths), 0.0, list[int]()
    for width, change in sorted(zip(widths, changes.tolist(), strict=True), reverse=True):
        if width < group.size and change < best - WORTHWHILE * latency.dense:
            best = change
            useful.append(width)
    return sorted(useful)


def layers(group: ChannelGroup) -> list[str]:
    """Return the names of all layers that a group touches, without repetition."""
    return list(dict.fromkeys((*group.producers, *group.carriers, *group.consumers)))


def untouched(loaded: LoadedModel) -> list[Group]:
    """Return what is left alone, and why."""
    return [
        Group(name=skipped.layers[0], layers=list(skipped.layers), reason=skipped.reason)
        for skipped in loaded.groups.skipped
    ]
