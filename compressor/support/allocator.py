"""Gives memory that Python and torch have freed back to other threads, or to the system."""

from __future__ import annotations

import ctypes
import sys

ARENA_MAX = -8
"""What glibc calls the number of pools that threads allocate from (M_ARENA_MAX of mallopt)."""


def trim() -> None:
    """Hand back what the allocator keeps for later; other systems than Linux, and other libraries, keep it.

    The allocator of glibc keeps freed blocks for the thread that freed them, gigabytes after passes in many threads.
    """
    _call("malloc_trim", 0)


def pool() -> None:
    """Let threads that begin from now on allocate from one pool, so that what one of them frees serves the others."""
    _call("mallopt", ARENA_MAX, 1)


def _call(name: str, *arguments: int) -> None:
    if sys.platform == "linux" and (function := getattr(ctypes.CDLL(None), name, None)) is not None:
        function(*arguments)
