"""The newest state of a training in one file, from which an interrupted one goes on."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from compressor.errors import InputError
from compressor.support.files import write_atomically

SECONDS_BETWEEN_SAVES = 10.0
SHARE_OF_TIME = 0.02
"""Saving takes at most this share of the time, however large the network and slow the disk."""


@dataclass
class Checkpoint:
    """A file that is either the older state or the newer one, never half of it.

    Attributes:
        path: The file; its folder is made when missing.
        identity: What the result depends on, JSON values; a state made with another one is refused.
    """

    path: Path
    identity: Mapping[str, Any]
    _next: float = field(default_factory=lambda: time.monotonic() + SECONDS_BETWEEN_SAVES, init=False)

    def due(self) -> bool:
        """Whether enough time has passed to save again."""
        return time.monotonic() >= self._next

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state: numbers, strings and tensors, in lists and dictionaries."""
        started = time.monotonic()
        buffer = io.BytesIO()
        torch.save({"identity": dict(self.identity), "state": dict(state)}, buffer)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, buffer.getbuffer())
        now = time.monotonic()
        self._next = now + max(SECONDS_BETWEEN_SAVES, (now - started) / SHARE_OF_TIME)

    def restore(self) -> dict[str, Any] | None:
        """Return the state that was saved last, its tensors on the CPU; None where there is none.

        Raises:
            InputError: The file cannot be read, or belongs to another training.
        """
        if not self.path.exists():
            return None
        cure = "remove the file to train from the beginning"
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            identity, state = content["identity"], content["state"]
        except Exception as error:  # a damaged file can make the unpickler raise anything
            raise InputError(f"is not a training checkpoint ({error})", where=str(self.path), cure=cure) from error
        if identity != self.identity:
            cure = f"{cure}, or use the settings that it was begun with"
            raise InputError("holds a training with other settings", where=str(self.path), cure=cure)
        return dict(state)
