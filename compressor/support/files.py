"""Files that are the old or the new ones, never half of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_json

T = TypeVar("T")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write beside `path`, which it replaces, safe on disk, when the body has succeeded."""
    temporary = path.with_name(f".{path.name}.tmp")
    yield temporary
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is either the old or the new one, never half of it."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file; what was at the target stays until the copy is whole."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def write_json(path: Path, value: Any) -> None:
    """Write a file of a stage."""
    path.write_text(json.dumps(value, indent=1))


def read_json(path: Path) -> Any:
    """Read a file of a stage."""
    return json.loads(path.read_text())


def write_facts(path: Path, facts: object) -> None:
    """Write a file of a stage: a dataclass, a part of a report, or a collection of them."""
    path.write_bytes(to_json(facts, indent=1, inf_nan_mode="constants"))


def read_facts(path: Path, kind: type[T]) -> T:
    """Read what `write_facts` wrote; keys of another version are skipped.

    Args:
        path: A file of a stage.
        kind: The class of what was written, such as `list[Epoch]`.
    """
    return TypeAdapter(kind).validate_json(path.read_bytes())
