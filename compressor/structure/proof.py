"""The proof that a plan is right: mask = shrink."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from compressor.errors import InputError
from compressor.structure.plan import Plan
from compressor.structure.surgery.mask import masked
from compressor.structure.surgery.shrink import shrink
from compressor.structure.tensors import duplicate
from compressor.structure.tracing.auxiliary import Touched
from compressor.structure.tracing.ops import TensorNames
from compressor.support.modules import evaluating, remembering

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
DTYPES = (torch.float64, torch.float32)


def verify(
    model: nn.Module, plan: Plan, example_inputs: Tensor | tuple[Any, ...], *, dtype: torch.dtype | None = None
) -> float:
    """Largest difference between the masked and the shrunk network, relative to the size of the output.

    Computed in double precision: about 1e-15 to 1e-12 when the plan is right; anything else says that it is wrong. In
    single precision, about 1e-6 is right.

    Args:
        model: The network with its original widths; left untouched.
        plan: The plan to prove.
        example_inputs: A tensor of shape (batch, ...), or a tuple of what `model(*inputs)` takes.
        dtype: Precision of the computation; by default double, or single where the network's code refuses double.

    Returns:
        The largest absolute difference over all outputs, each relative to the largest absolute value in it.

    Raises:
        InputError: A copy of the network does not run by itself.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> inputs = torch.randn(16, 4)
        >>> plan = compressor.Plan.uniform(compressor.find_groups(model, inputs), keep=0.5)
        >>> compressor.verify(model, plan, inputs) < 1e-12
        True
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    exact, inputs, _ = precise_copy(model, inputs, DTYPES if dtype is None else (dtype,))
    with evaluating(exact):
        with masked(exact, plan), remembering(exact):
            expected = exact(*inputs)
        small = shrink(exact, plan)
        return difference(expected, small(*inputs))


def precise_copy(
    model: nn.Module, inputs: tuple[Any, ...], dtypes: Sequence[torch.dtype] = DTYPES
) -> tuple[nn.Module, tuple[Any, ...], torch.dtype]:
    """A copy of a network, and its inputs, in the first of the precisions in which it runs.

    Raises:
        InputError: It runs in none of them, or on other tensors than its own.
    """
    others, problem = TensorNames(model), ""
    for dtype in dtypes:
        copy, own = duplicate(model).to(dtype), cast(inputs, dtype)
        try:
            with evaluating(copy), remembering(copy), Touched(others) as touched:
                copy(*own)
            if not touched.names:
                return copy, own, dtype
            problem = problem or "it does not use its own weights"
        except Exception as error:  # whatever the network's code raises
            problem = problem or (str(error).strip().splitlines() or [type(error).__name__])[0]
    cure = "keep layers as attributes or in an nn.ModuleList, not in lists, closures or a forward that was replaced"
    raise InputError(f"a copy of the network does not run as the network does: {problem}", where="model", cure=cure)


def cast(inputs: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """The inputs with all floating-point tensors in the given precision."""
    changed: tuple[Any, ...] = tree_map(
        lambda v: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v, inputs
    )
    return changed


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
