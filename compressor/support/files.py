"""Files that are the old or the new ones, never half of them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is either the old or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write a file of a stage."""
    path.write_text(json.dumps(value, indent=1))


def read_json(path: Path) -> Any:
    """Read a file of a stage."""
    return json.loads(path.read_text())
