"""The proof that a plan is right: mask = shrink."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from compressor.structure.mask import masked
from compressor.structure.plan import Plan
from compressor.structure.shrink import duplicate, shrink
from compressor.structure.watch import evaluating

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}


def verify(
    model: nn.Module, plan: Plan, example_inputs: Tensor | tuple[Any, ...], *, dtype: torch.dtype = torch.float64
) -> float:
    """Largest difference between the masked and the shrunk network, relative to the size of the output.

    Computed in double precision: about 1e-15 to 1e-12 when the plan is right; anything else says that it is wrong.

    Args:
        model: The network with its original widths; left untouched.
        plan: The plan to prove.
        example_inputs: A tensor, or a tuple of what `model(*inputs)` takes.
        dtype: Precision of the computation.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    inputs = tree_map(lambda v: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v, inputs)
    exact = duplicate(model).to(dtype)
    with evaluating(exact):
        with masked(exact, plan):
            expected = exact(*inputs)
        small = shrink(exact, plan)
        return difference(expected, small(*inputs))


def difference(expected: Any, actual: Any) -> float:
    """Largest absolute difference over all outputs, relative to the largest absolute value of the same output."""
    worst = 0.0
    for left, right in zip(_tensors(expected), _tensors(actual), strict=True):
        if left.shape != right.shape or not (left.isfinite().all() and right.isfinite().all()):
            return float("inf")
        if left.numel():
            scale = left.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
            worst = max(worst, float((left - right).abs().max() / scale))
    return worst


def _tensors(outputs: Any) -> list[Tensor]:
    leaves = tree_leaves(dict(outputs) if hasattr(outputs, "items") else outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
