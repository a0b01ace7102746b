"""Memory that Python and torch have freed goes back to the system."""

from __future__ import annotations

import ctypes
import sys


def trim() -> None:
    """Hand back what the allocator keeps for later; other systems than Linux, and other libraries, keep it.

    The allocator of glibc keeps freed blocks for the thread that freed them, gigabytes after passes in many threads.
    """
    if sys.platform != "linux":
        return
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)
