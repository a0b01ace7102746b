"""How much memory this process can still take before the system, or the container that it runs in, ends it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that are free to take, by the machine and by all control groups around this process; None if not known.

    Args:
        root: Where `proc` and `sys` lie.
    """
    free = [_machine(root), *_control_groups(root)]
    known = [size for size in free if size is not None]
    return max(0, min(known)) if known else None


def _machine(root: Path) -> int | None:
    """What the kernel takes for available, and free swap: before that is used up nothing is killed."""
    found = dict(re.findall(r"^(\w+): +(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE))
    if "MemAvailable" not in found:
        return None
    return 1024 * (int(found["MemAvailable"]) + int(found.get("SwapFree", 0)))


def _control_groups(root: Path) -> Iterator[int | None]:
    """What is left below the limit of each control group, of version 1 or 2, from that of this process up."""
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names = "memory.max", "memory.current", "inactive_file"
            yield from (_left(folder, *names) for folder in _upwards(mounts, path))
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            yield from (_left(folder, *names) for folder in _upwards(mounts / "memory", path))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The folder of a group and those around it. Inside a container, where the path is that of the host, the top."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return (mount.joinpath(*parts[:count]) for count in range(len(parts), -1, -1))


def _left(group: Path, limit: str, used: str, cached: str) -> int | None:
    """Bytes up to the limit of a group; files that are cached and not in use make room when it is needed."""
    most, now = (_read(group / name).strip() for name in (limit, used))
    if not (most.isdecimal() and now.isdecimal()):
        return None
    idle = re.search(rf"^{cached} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
    return int(most) - int(now) + (int(idle[1]) if idle else 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
