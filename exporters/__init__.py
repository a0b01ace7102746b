"""From an `nn.Module` to ONNX files, and what those files cost on a device.

Measuring needs ONNX Runtime and NumPy only; torch is imported when something is exported or compared.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Bound here and not lazily: importing the submodule `benchmark` would put the module in the function's place.
from exporters.benchmark import Benchmark, benchmark
from exporters.errors import ExportError, InvalidModelError, ProviderUnavailableError
from exporters.runtime import create_session, environment, random_inputs
from exporters.statistics import Latency, Speedup

if TYPE_CHECKING:
    from exporters.onnx import count_nodes, export_onnx, read_metadata
    from exporters.parity import Parity, check_parity

__all__ = [
    "Benchmark",
    "ExportError",
    "InvalidModelError",
    "Latency",
    "Parity",
    "ProviderUnavailableError",
    "Speedup",
    "benchmark",
    "check_parity",
    "count_nodes",
    "create_session",
    "environment",
    "export_onnx",
    "random_inputs",
    "read_metadata",
]

_NEED_TORCH = {
    "Parity": "exporters.parity",
    "check_parity": "exporters.parity",
    "count_nodes": "exporters.onnx",
    "export_onnx": "exporters.onnx",
    "read_metadata": "exporters.onnx",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_TORCH:
        return getattr(import_module(_NEED_TORCH[name]), name)
    raise AttributeError(f"module 'exporters' has no attribute {name!r}")
