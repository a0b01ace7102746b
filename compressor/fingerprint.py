"""Hashes of what a run depends on, so that a finished stage is used again only for the same network and data."""

from __future__ import annotations

import hashlib
import inspect
import os
from pathlib import Path

import torch
from torch import Tensor, nn


def of_network(model: nn.Module) -> str:
    """Hash of architecture, weights, and the source files of all layers that are not PyTorch's own."""
    digest = hashlib.sha256(str(model).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(of_tensors((tensor,)).encode())
    for path in sorted({_source(type(module)) for module in model.modules()}):
        digest.update(Path(path).read_bytes() if path else b"")
    return digest.hexdigest()


def _source(kind: type) -> str:
    if kind.__module__.partition(".")[0] in ("torch", "builtins"):
        return ""
    try:
        path = inspect.getsourcefile(kind)
    except TypeError:
        return ""
    return path if path and os.path.exists(path) else ""


def of_tensors(tensors: tuple[Tensor, ...]) -> str:
    """Hash of types, shapes and values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def of_files(root: Path) -> str:
    """Hash of the names, sizes and times of change of all files below a folder; their contents are not read."""
    digest = hashlib.sha256()
    for parent, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            status = os.stat(os.path.join(parent, name))
            place = os.path.relpath(os.path.join(parent, name), root)
            digest.update(f"{place} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def of_contents(*contents: bytes) -> str:
    """Hash of byte strings, in their order."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
