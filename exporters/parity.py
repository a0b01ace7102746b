"""Does the file compute what the module computes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from exporters.errors import CURE, ExportError
from exporters.inputs import ExampleInputs, as_call, evaluating, leaves, take
from exporters.runtime import create_session, fixed_batch, reason


@dataclass(frozen=True)
class Parity:
    """The largest difference between file and module, over all batch sizes, outputs and elements.

    Attributes:
        max_abs: Largest absolute difference.
        max_rel: Largest absolute difference of an output, divided by the largest absolute value of that output in
            the module; infinite where either side is not a number.
        batch_sizes: The batch sizes that were compared.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> path = exporters.export_onnx(model, torch.randn(2, 4), "linear.onnx")
        >>> exporters.check_parity(model, path, torch.randn(8, 4)).batch_sizes
        (1, 3, 8)
    """

    max_abs: float
    max_rel: float
    batch_sizes: tuple[int, ...]


def check_parity(
    model: nn.Module,
    path: str | Path,
    example_inputs: ExampleInputs,
    *,
    batch_sizes: Sequence[int] = (1, 3, 8),
    provider: str = "cpu",
) -> Parity:
    """Compare the file with the module in evaluation mode, on real inputs.

    Args:
        model: The module that was exported.
        path: The ONNX file.
        example_inputs: As for `export_onnx`, with any number of items: batches are taken from the front, and repeat
            the items where there are too few.
        batch_sizes: Batch sizes to compare; a file with a fixed batch is compared at that one only.
        provider: A name in `providers.PROVIDERS`.

    Returns:
        The largest differences over all batch sizes and outputs.

    Raises:
        ExportError: the file does not have the inputs and outputs of the module.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> path = exporters.export_onnx(model, torch.randn(2, 4), "linear.onnx")
        >>> exporters.check_parity(model, path, torch.randn(8, 4)).max_rel < 1e-5
        True
    """
    session = create_session(path, provider=provider)
    fixed = fixed_batch(session)
    sizes = tuple(batch_sizes) if fixed is None else (fixed,)
    with evaluating(model), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        pairs = [pair for size in sizes for pair in _outputs(model, session, example_inputs, size, path)]
    differences = [_difference(*pair) for pair in pairs]
    return Parity(max(d for d, _ in differences), max(r for _, r in differences), sizes)


def _outputs(
    model: nn.Module, session: ort.InferenceSession, example_inputs: ExampleInputs, batch: int, path: str | Path
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (module, file) of every output on one batch."""
    args, kwargs = as_call(example_inputs, model)
    tensors, nodes = [*args, *kwargs.values()], session.get_inputs()
    if len(tensors) != len(nodes):
        raise ExportError(f"it has {len(nodes)} inputs, not {len(tensors)}", where=str(path), cure=CURE)
    tensors = [_sized(tensor, node, batch) for tensor, node in zip(tensors, nodes, strict=True)]
    reference = leaves(model(*tensors[: len(args)], **dict(zip(kwargs, tensors[len(args) :], strict=True))))
    feed = {node.name: tensor.cpu().numpy() for node, tensor in zip(nodes, tensors, strict=True)}
    try:
        outputs = session.run(None, feed)
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        raise ExportError(f"ONNX Runtime cannot run it ({reason(error)})", where=str(path), cure=CURE) from error
    shapes = [tuple(tensor.shape) for tensor in reference]
    if shapes != [output.shape for output in outputs]:
        raise ExportError(
            f"its outputs have the shapes {[output.shape for output in outputs]}, those of the module {shapes}",
            where=str(path),
            cure=CURE,
        )
    return [(tensor.cpu().numpy(), output) for tensor, output in zip(reference, outputs, strict=True)]


def _sized(tensor: Tensor, node: ort.NodeArg, batch: int) -> Tensor:
    """The input with the batch size that is asked for, or the one that the file is fixed to."""
    if not node.shape or not tensor.ndim:
        return tensor
    return take(tensor, node.shape[0] if isinstance(node.shape[0], int) else batch)


def _difference(reference: np.ndarray, output: np.ndarray) -> tuple[float, float]:
    """Largest absolute difference, and the same as a share of the largest reference value."""
    reference, output = reference.astype(np.float64), output.astype(np.float64)
    difference = np.abs(np.where(reference == output, 0.0, output - reference)).max(initial=0.0)
    scale = np.abs(reference[np.isfinite(reference)]).max(initial=0.0)
    if not np.isfinite(difference):
        return float("inf"), float("inf")
    return float(difference), float(difference / scale) if difference else 0.0
