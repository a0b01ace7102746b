"""How many cores this process has: its affinity, and what its container may use. Needs the standard library only.

Containers seldom narrow the affinity; they are given a quota of processor time, which a control group (cgroup) holds.
Every group above that of the process can hold one as well, and the least of them counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> float:
    """Cores that this process may use: a whole number, unless its container has a quota that is none.

    Args:
        root: Where `proc` and the control groups are looked for.
    """
    allowed, quota = _allowed_cores(), cpu_quota(root)
    return allowed if quota is None or quota >= allowed else quota


def cpu_quota(root: Path = ROOT) -> float | None:
    """Cores' worth of processor time that the container may use; None without a limit."""
    quotas = (_quota(folder) for folder in _groups(root))
    return min((quota for quota in quotas if quota is not None), default=None)


def doubt(threads: int, cores: float) -> str | None:
    """Why times measured with so many threads on so many cores are not what they seem; None where they are."""
    if cores < 1:
        return (
            f"the container may use {cores:g} of a core: calls are throttled, wall times are not those of the processor"
        )
    if threads > cores:
        have = "core" if cores == 1 else "cores"
        return f"{threads} threads wait for one another on {cores:g} {have}: {int(cores)} or fewer would not"
    return None


def _allowed_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the control groups that the process is in, each with those above it (versions 1 and 2)."""
    own = dict(_own_groups(root))
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, kind = line.partition(" - ")
        fields, (name, _, options) = mount.split(" "), kind.split(" ", 2)
        controller = {"cgroup": "cpu", "cgroup2": ""}.get(name)
        if controller not in own or (controller and controller not in options.split(",")):
            continue
        top = root / fields[4].lstrip("/")
        below = _below(own[controller], fields[3])
        yield from (top.joinpath(*below.parts[:depth]) for depth in range(len(below.parts) + 1))


def _own_groups(root: Path) -> Iterator[tuple[str, str]]:
    """The path of the process's group by its controller, which is empty in version 2."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        yield from ((controller, path) for controller in controllers.split(","))


def _below(path: str, mounted: str) -> PurePosixPath:
    """A group's place below the mounted one; a container that sees its own group only has it mounted at the top."""
    group = PurePosixPath(path)
    inside = group.is_relative_to(mounted) and ".." not in group.parts
    return group.relative_to(mounted) if inside else PurePosixPath()


def _quota(folder: Path) -> float | None:
    quota, period = _first(folder / "cpu.cfs_quota_us"), _first(folder / "cpu.cfs_period_us")
    both = [quota, period] if quota and period else (_first(folder / "cpu.max") or "max").split()
    if len(both) != 2 or not all(number.isdecimal() for number in both) or not int(both[1]):
        return None  # "max", or -1
    return int(both[0]) / int(both[1])


def _first(path: Path) -> str | None:
    return next(iter(_lines(path)), None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # no such system, controller or permission: no limit is known
        return []
