"""Memory that Python and torch have freed goes back to the system."""

from __future__ import annotations

import ctypes


def trim() -> None:
    """Hand back what the allocator keeps for later; where the C library has no such call, nothing happens.

    The allocator of glibc keeps freed blocks for the thread that freed them, gigabytes after passes in many threads.
    """
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)
