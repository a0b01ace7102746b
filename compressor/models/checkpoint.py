"""Reading weights in the forms in which people keep them."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.support.files import sha256

ENTRIES = ("state_dict", "model", "model_state_dict", "net", "ema")
PREFIXES = ("module.", "_orig_mod.", "model.")
HARMLESS = re.compile(r"(^|\.)(num_batches_tracked|total_ops|total_params|n_averaged|num_updates|decay)$")
SCALAR = np.float64(0).__reduce__()[0]
SAFE: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i8")),
    *((SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
DEPTH = 4


@dataclass(frozen=True)
class LoadReport:
    """What was loaded.

    Attributes:
        path: The file.
        sha256: Its hash.
        entry: Where in the file the weights were, such as `state_dict`; empty for the top.
        tensors: Number of tensors that were loaded.
        ignored: Keys of the file that the network has no use for, all known to be harmless.
    """

    path: Path
    sha256: str
    entry: str
    tensors: int
    ignored: tuple[str, ...]


def load_checkpoint(model: nn.Module, path: Path, allow_pickle: bool = False) -> LoadReport:
    """Load a checkpoint into `model`; a checkpoint that does not fit leaves the model untouched.

    The state dict may be at the top or nested under any name; of several, the one that fits best is taken. The prefixes
    of wrappers (`module.`, `_orig_mod.`, `model.`) are removed where that makes the names fit.

    Args:
        model: The network to fill.
        path: A .safetensors file, or whatever `torch.save` wrote (.pt .pth .th .ckpt).
        allow_pickle: Also read pickled modules, which can run code while they are read.

    Returns:
        What was loaded.

    Raises:
        InputError: the file is no checkpoint, does not fit the network, or holds NaN or infinite weights.
    """
    path = Path(path)
    content = _read(path, allow_pickle)
    expected = {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    candidates = [(entry, _strip(found, expected)) for entry, found in _state_dicts(content)]
    if not candidates:
        raise InputError(
            "there is no state dict in it", where=str(path), cure="save it with torch.save(model.state_dict(), path)"
        )
    entry, found = max(candidates, key=lambda c: _fit(c[1], expected))
    ignored = tuple(key for key in found if key not in expected and HARMLESS.search(key))
    _check_names(path, found, expected, ignored)
    weights = {key: _convert(path, key, found[key], expected[key]) for key in expected if key in found}
    state = model.state_dict()  # it knows the versions of its layers, for which some layers ask
    state.update(weights)
    model.load_state_dict(state, strict=False)
    return LoadReport(path, sha256(path), entry, len(weights), ignored)


def _read(path: Path, allow_pickle: bool) -> Any:
    if path.is_dir():
        raise InputError("this is a folder, not a file", where=str(path), cure="name the checkpoint's file in it")
    if not path.is_file():
        raise InputError(
            "there is no such file", where=str(path), cure="correct model.checkpoint; it is relative to the recipe"
        )
    if path.stat().st_size == 0:
        raise InputError("the file is empty", where=str(path), cure="copy or download it again")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return _unpickle(path, allow_pickle)
    except InputError:
        raise
    except Exception as error:  # a damaged file can make the unpickler raise anything
        raise _unreadable(path, error) from error


def _unpickle(path: Path, allow_pickle: bool) -> Any:
    try:
        with torch.serialization.safe_globals(SAFE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if "TorchScript" in str(error):
            raise InputError(
                "this is a TorchScript archive, not a checkpoint",
                where=str(path),
                cure="save its weights: torch.save(torch.jit.load(path).state_dict(), new_path)",
            ) from error
        refused = re.search(r"GLOBAL (\w[\w.]*)|Unsupported class (\w[\w.]*)", str(error))
        if refused is None:
            raise
        if not allow_pickle:
            raise InputError(
                f"it holds a pickled object ({refused[1] or refused[2]}), and reading that can run any code",
                where=str(path),
                cure="save model.state_dict() instead, or, if you trust the file, set model.allow_pickle: true",
            ) from error
    return torch.load(path, map_location="cpu", weights_only=False)


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    if "weights_only" in reason:
        reason = "it is not a file of weights"
    return InputError(
        f"it cannot be read as a checkpoint ({type(error).__name__}: {reason})",
        where=str(path),
        cure="it is damaged or of another kind: copy it again; the right kinds are .pt .pth .th .ckpt .safetensors",
    )


def _state_dicts(content: Any, entry: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping from names to tensors in `content`, the usual entries first."""
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping) or depth > DEPTH:
        return
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield entry, tensors
    names = [name for name in content if isinstance(name, str)]
    for name in sorted(names, key=lambda n: ENTRIES.index(n) if n in ENTRIES else len(ENTRIES)):
        yield from _state_dicts(content[name], f"{entry}.{name}".lstrip("."), depth + 1)


def _strip(found: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove wrappers' prefixes, as far as that makes more names fit."""
    variants = generation = [found]
    for _ in range(DEPTH):
        generation = [_without(prefix, names) for names in generation for prefix in PREFIXES if _has(prefix, names)]
        variants = variants + generation
    return max(variants, key=lambda names: _fit(names, expected))


def _has(prefix: str, names: Iterable[str]) -> bool:
    return any(name.startswith(prefix) for name in names)


def _without(prefix: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in found.items()}


def _fit(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many names fit, with their shapes and without."""
    common = [key for key in expected if key in found]
    return sum(found[key].shape == expected[key].shape for key in common), len(common)


def _check_names(
    path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], ignored: tuple[str, ...]
) -> None:
    faults = {
        "missing": [key for key in expected if key not in found and not key.endswith("num_batches_tracked")],
        "left over": [key for key in found if key not in expected and key not in ignored],
        "of another shape": [
            f"{key} {list(found[key].shape)} instead of {list(expected[key].shape)}"
            for key in expected
            if key in found and found[key].shape != expected[key].shape
        ],
    }
    texts = [f"{len(keys)} {fault} ({_first(keys)})" for fault, keys in faults.items() if keys]
    if texts:
        raise InputError(
            f"the checkpoint does not fit the network: of {len(expected)} tensors, {', '.join(texts)}",
            where=str(path),
            cure="make model.builder and model.args those of the network that was saved",
        )


def _first(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (", …" if len(keys) > count else "")


def _convert(path: Path, key: str, value: Tensor, expected: Tensor) -> Tensor:
    """Bring a tensor to the network's type, and prove that it holds numbers."""
    if key.endswith("num_batches_tracked"):
        return value.detach().to(expected.dtype)
    if value.is_meta or value.is_nested or value.layout != torch.strided:
        raise InputError(f"{key} holds no dense numbers", where=str(path), cure="save ordinary dense tensors")
    if value.is_floating_point() != expected.is_floating_point() or value.is_complex() or value.is_quantized:
        raise InputError(
            f"{key} is {value.dtype} instead of {expected.dtype}", where=str(path), cure="save float weights"
        )
    value = value.detach().to(expected.dtype)
    if value.is_floating_point() and not value.isfinite().all():
        raise InputError(
            f"{key} holds NaN or infinite values",
            where=str(path),
            cure="take a checkpoint of a run that did not diverge",
        )
    return value
