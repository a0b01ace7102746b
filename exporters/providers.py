"""The execution providers of ONNX Runtime that files can be measured on: one row each. Needs no other package.

Recipe, command line, sessions, clocks, latency tables and measuring kits read this table; a new provider is a new row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from exporters.clock import THREAD_CPU, WALL
from exporters.errors import ProviderUnavailableError

HOST = "cpu"
"""What ONNX Runtime calls the main memory, from which a session takes its inputs without a binding."""


@dataclass(frozen=True)
class Provider:
    """An execution provider, and what measuring on it depends on.

    Attributes:
        name: What recipes and the command line call it.
        ort_name: What ONNX Runtime calls it.
        package: The package that brings an ONNX Runtime with it.
        device: Where inputs and outputs lie while it is measured, as ONNX Runtime names it.
        clock: What times its calls where one thread does the work: `thread_cpu` only where that is the calling thread.
        times_operators: Whether its profile holds the time of every operator, of which latency tables are made.
        max_spread: Latencies that spread further around the median, as a fraction of it, give a warning.
        check: What to look at where it does not start.
    """

    name: str
    ort_name: str
    package: str = "onnxruntime"
    device: str = HOST
    clock: str = WALL
    times_operators: bool = False
    max_spread: float = math.inf
    check: str = "the installation of onnxruntime"


_ROWS = (
    Provider("cpu", "CPUExecutionProvider", clock=THREAD_CPU, times_operators=True, max_spread=0.10),
    Provider(
        "cuda",
        "CUDAExecutionProvider",
        package="onnxruntime-gpu",
        device="cuda",
        check="the driver and the CUDA and cuDNN versions that this onnxruntime-gpu needs",
    ),
)
PROVIDERS = {row.name: row for row in _ROWS}
"""The table, by name."""


def find_provider(name: str) -> Provider:
    """Return the row of a provider.

    Raises:
        ProviderUnavailableError: there is none of that name.
    """
    if name not in PROVIDERS:
        raise ProviderUnavailableError(f"'{name}' is not known", cure=f"choose one of: {', '.join(PROVIDERS)}")
    return PROVIDERS[name]
