"""ONNX Runtime sessions that are what was asked for, and the machine that they run on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from exporters.cores import cpu_quota, usable_cores
from exporters.errors import CURE, ExportError, InvalidModelError, ProviderUnavailableError
from exporters.providers import Provider, find_provider

MOST_THREADS = 32
"""Threads for each core of the machine; thousands of them would bring it to a halt."""
SPINNING = True
"""Whether idle threads wait actively, as ONNX Runtime does by default."""
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def create_session(path: str | Path, *, provider: str = "cpu", threads: int = 1) -> ort.InferenceSession:
    """Open the file on that provider with all graph optimisations, and never on another one.

    Args:
        path: An ONNX file.
        provider: A name in `providers.PROVIDERS`.
        threads: Threads inside one operator; operators run one after another.

    Returns:
        An open session; `run(None, {name: array})` returns its outputs.

    Raises:
        InvalidModelError: the file is missing, or ONNX Runtime cannot run it.
        ExportError: there are far more threads than cores.
        ProviderUnavailableError: the provider is unknown, or not active in the session.

    Example:
        >>> session = exporters.create_session("dense.onnx", threads=1)
        >>> (output,) = session.run(None, exporters.random_inputs(session, batch=3))
        >>> output.shape
        (3, 2)
    """
    found = _active(provider)
    if not Path(path).is_file():
        raise InvalidModelError("there is no such file", where=str(path), cure=CURE)
    check_threads(threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(SPINNING)))
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=[found.ort_name])
    except Exception as error:  # ONNX Runtime's errors have no common base but Exception
        raise InvalidModelError(f"ONNX Runtime cannot load it ({reason(error)})", where=str(path), cure=CURE) from error
    if session.get_providers()[0] != found.ort_name:
        raise ProviderUnavailableError(
            f"{found.ort_name} could not be started; ONNX Runtime offers {', '.join(session.get_providers())} instead",
            where=str(path),
            cure=f"check {found.check}",
        )
    session.disable_fallback()
    return session


def check_threads(threads: int) -> None:
    """Refuse threads that would bring the machine to a halt.

    Raises:
        ExportError: there are far more threads than cores.
    """
    cores = usable_cores()
    if threads > (most := MOST_THREADS * max(1, int(cores))):
        cure = f"ask for {most} or fewer; more than there are cores make nothing faster"
        raise ExportError(f"{threads} threads are too many for {cores:g} cores", where="threads", cure=cure)


def environment() -> dict[str, Any]:
    """What a latency depends on: processor, load, versions. JSON-ready; None where the system does not tell.

    Example:
        >>> machine = exporters.environment()
        >>> machine["cores"] >= 1, "CPUExecutionProvider" in machine["providers"]
        (True, True)
    """
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "cpu_quota": cpu_quota(),
        "governor": _first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "os": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "providers": ort.get_available_providers(),
        "spinning": SPINNING,
    }


def random_inputs(
    session: ort.InferenceSession, batch: int, seed: int = 0, *, dims: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """Random inputs of the shapes and types that the file declares: standard normal, or 0 and 1 for whole numbers.

    Args:
        session: An open file.
        batch: Size of a first dimension that is free.
        seed: Seed of the numbers.
        dims: Sizes of other free dimensions, by name.

    Returns:
        An array for each input, by its name, of shape (batch, ...).

    Raises:
        ExportError: the file is fixed to another batch size, or has a dimension or type that cannot be filled in.

    Example:
        >>> inputs = exporters.random_inputs(exporters.create_session("dense.onnx"), batch=3)
        >>> [array.shape for array in inputs.values()]
        [(3, 4)]
    """
    rng, inputs = np.random.default_rng(seed), session.get_inputs()
    fixed = fixed_batch(session)
    if fixed not in (None, batch):
        raise ExportError(
            f"the file takes batches of {fixed} only, not of {batch}",
            where=inputs[0].name,
            cure=f"use batch {fixed}, or export with a dynamic batch",
        )
    return {node.name: _random(node, batch, rng, dims or {}) for node in inputs}


def fixed_batch(session: ort.InferenceSession) -> int | None:
    """The only batch size that the file takes, or None if it takes any."""
    first = [node.shape[0] for node in session.get_inputs() if node.shape]
    return first[0] if first and all(isinstance(dim, int) for dim in first) else None


def _random(node: ort.NodeArg, batch: int, rng: np.random.Generator, dims: Mapping[str, int]) -> np.ndarray:
    if node.type not in DTYPES:
        raise ExportError(f"inputs of type {node.type} cannot be made up", where=node.name)
    known = [batch if i == 0 and not isinstance(d, int) else dims.get(d, d) for i, d in enumerate(node.shape)]
    if unknown := [dim for dim in known if not isinstance(dim, int)]:
        raise ExportError(
            f"the size of dimension {unknown[0]!r} is not known", where=node.name, cure="export with fixed image sizes"
        )
    dtype = DTYPES[node.type]
    values = rng.standard_normal(known) if issubclass(dtype, np.floating) else rng.integers(0, 2, known)
    return np.asarray(values, dtype)


def _active(name: str) -> Provider:
    """The provider, where this onnxruntime has it."""
    found = find_provider(name)
    if found.ort_name not in ort.get_available_providers():
        raise ProviderUnavailableError(
            f"this onnxruntime has no {found.ort_name}; it has {', '.join(ort.get_available_providers())}",
            cure=f"install an onnxruntime that has {found.ort_name} ({found.package} for {name}), or use provider cpu",
        )
    return found


def reason(error: Exception) -> str:
    """The message without ONNX Runtime's error code in front."""
    return str(error).strip().rpartition("] : ")[2].splitlines()[0][:500]


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _first_line(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None
