"""What a target is about, and the cost model that measures it."""

from __future__ import annotations

from typing import Any

from torch import nn

from compressor.budget.costs.base import CostModel
from compressor.budget.costs.tensor_cost import ProductCost
from compressor.recipe import CompressSection
from compressor.structure.groups import Groups
from compressor.support import plugins

USUAL_ALIGNMENT = 4
"""Widths that are no multiples of this leave the fast path on most devices."""


MEASURED = ("speedup", "latency_ms")
"""Kinds of targets that are measured in the end; the others can be computed."""


def target_of(section: CompressSection) -> tuple[str, float]:
    """Return the kind of the target and the share to keep."""
    return next((kind, share) for kind, share in section.target if share is not None)


def multiple(section: CompressSection) -> int:
    """Return what kept widths are multiples of where no device was measured."""
    return section.multiple_of or USUAL_ALIGNMENT


def make_cost_model(kind: str, model: nn.Module, groups: Groups) -> CostModel:
    """Return the cost model that a kind of target is about."""
    build: Any = plugins.find("compressor.budget.costs", ProductCost, kind, where="compress.target")
    cost: CostModel = build(model, groups)
    return cost
