"""A clock that a busy machine does not bend, and the calm to read it in. Needs the standard library only.

With one thread, ONNX Runtime works on the thread that calls it. The processor time of that thread is what the call
would take on a quiet machine, whatever else runs. With several threads, and on other devices, only the wall clock
covers the work.

Processor time is not quite untouched by others: each time that the thread loses its processor, it comes back to cold
caches. Where every call is interrupted, that adds some percent, and more to a small network than to a large one. So
the scheduler is asked for long turns while measuring (Linux 6.12 and newer; no privilege is needed).
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporters.providers import Provider

THREAD_CPU, WALL = "thread_cpu", "wall"
SLICE_NS = 100_000_000
"""The longest turn that Linux grants to an ordinary thread, in nanoseconds."""
PROBE_SECONDS, MIN_TICKS = 0.02, 20
"""How long a clock is watched before it is trusted, and how often it must have moved by then."""

_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""Number of the system call `sched_setattr`."""


def clock_for(provider: Provider, threads: int, now: Callable[[], float] = time.thread_time) -> str:
    """The clock that tells what a call costs: `thread_cpu` where it can be had, else `wall`.

    Args:
        provider: Where the network runs.
        threads: Threads inside one operator.
        now: The clock of this thread's processor time, in seconds.
    """
    return provider.clock if threads == 1 and (provider.clock == WALL or is_fine(now)) else WALL


def is_fine(now: Callable[[], float]) -> bool:
    """Whether a clock of processor time advances in steps that are small enough to time single calls."""
    seen, end = {now()}, time.perf_counter() + PROBE_SECONDS
    while len(seen) < MIN_TICKS and time.perf_counter() < end:
        seen.add(now())
    return len(seen) >= MIN_TICKS


def timed(call: Callable[[], object], calls: int = 1) -> tuple[float, float]:
    """Run `call` some times in a row.

    Returns:
        Seconds per call: processor time of this thread, and wall time.
    """
    wall, cpu = time.perf_counter(), time.thread_time()
    for _ in range(calls):
        call()
    cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
    return cpu / calls, wall / calls


@contextmanager
def calm() -> Iterator[bool]:
    """Keep Python's garbage collector out, and ask the scheduler for long turns.

    Yields:
        Whether the scheduler agreed.
    """
    collects = gc.isenabled()
    gc.disable()
    granted = _ask_for_turns(SLICE_NS)
    try:
        yield granted
    finally:
        if granted:
            _ask_for_turns(0)
        if collects:
            gc.enable()


def _ask_for_turns(nanoseconds: int) -> bool:
    """Ask for turns of that length, 0 for the default; false where the system has no such thing, or says no."""
    number = _SET_ATTRIBUTES.get(platform.machine()) if platform.system() == "Linux" else None
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = struct.pack("IIQiIQQQ", 48, os.SCHED_OTHER, 0, niceness, 0, nanoseconds, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, 0, attributes, 0) == 0)
