"""Hashes of what a run depends on, so that a finished stage is used again only for the same network and data."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

READ = 2**30
"""Bytes up to which a file that is named counts by its contents, beyond by its size and time of change."""


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


def of_named(arguments: Any, folders: Iterable[Path], *, out: Path) -> str:
    """Hash of the files and folders that arguments name.

    Args:
        arguments: Strings, in dictionaries and lists; those that name nothing count for nothing.
        folders: Where the names are looked for.
        out: What is written to; a folder around it would change by itself, and does not count.
    """
    digest, places = hashlib.sha256(), list(folders)
    for text in filter(_could_be_a_path, tree_leaves(arguments)):
        for path in dict.fromkeys(folder / text for folder in places):
            if path.is_file():
                digest.update(path.read_bytes() if path.stat().st_size <= READ else _status(path))
            elif path.is_dir() and not out.resolve().is_relative_to(path.resolve()):
                digest.update(of_files(path).encode())
    return digest.hexdigest()


def _could_be_a_path(value: Any) -> bool:
    return isinstance(value, str | Path) and 0 < len(str(value)) < 1024 and "\0" not in str(value)


def _status(path: Path) -> bytes:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}".encode()


def of_contents(*contents: bytes) -> str:
    """Hash of byte strings, in their order."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
