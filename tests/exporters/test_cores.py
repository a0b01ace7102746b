"""Cores that a process has, by its affinity and by the quotas of its control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters import cores
from exporters.cores import cpu_quota, doubt, usable_cores

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
V1 = "31 23 0:27 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHERS = "32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n33 23 0:29 / /proc rw - proc proc rw"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_allowed_cores", lambda: 8)


def machine(root: Path, groups: str, mounts: str, files: dict[str, str] = {}) -> Path:  # noqa: B006
    """A tree of files as Linux shows them to a process."""
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": f"{mounts}\n{OTHERS}\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_2(root: Path, group: str, limits: dict[str, str]) -> Path:
    files = {f"sys/fs/cgroup/{folder}cpu.max": f"{limit}\n" for folder, limit in limits.items()}
    return machine(root, f"0::{group}\n", V2, files)


def version_1(root: Path, group: str, limits: dict[str, int], mounted: str = "/") -> Path:
    files = {}
    for folder, quota in limits.items():
        files[f"sys/fs/cgroup/cpu,cpuacct/{folder}cpu.cfs_quota_us"] = f"{quota}\n"
        files[f"sys/fs/cgroup/cpu,cpuacct/{folder}cpu.cfs_period_us"] = "100000\n"
    return machine(root, f"5:memory:/other\n4:cpu,cpuacct:{group}\n", V1.format(root=mounted), files)


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({}, None),
        ({"": "max 100000"}, None),
        ({"": "150000 100000"}, 1.5),
        ({"": "50000 100000"}, 0.5),
        ({"a/b/": "400000 100000", "a/": "250000 100000"}, 2.5),
        ({"a/b/": "100000 50000", "a/": "max 100000", "": "300000 100000"}, 2),
        ({"a/b/": "max 100000", "c/": "100000 100000"}, None),
        ({"a/b/": ""}, None),
        ({"a/b/": "many few"}, None),
        ({"a/b/": "100000 0"}, None),
    ],
)
def test_the_least_quota_from_the_group_to_the_top_counts(
    limits: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    assert cpu_quota(version_2(tmp_path, "/a/b", limits)) == quota


@pytest.mark.parametrize(
    ("limits", "quota"), [({"": -1}, None), ({"": 200000}, 2), ({"a/b/": -1, "a/": 50000, "": 200000}, 0.5)]
)
def test_quotas_of_version_1_count_as_well(limits: dict[str, int], quota: float | None, tmp_path: Path) -> None:
    assert cpu_quota(version_1(tmp_path, "/a/b", limits)) == quota


def test_a_container_that_sees_its_own_group_only_has_it_at_the_top(tmp_path: Path) -> None:
    inside = version_1(tmp_path / "1", "/docker/7f", {"": 300000}, mounted="/docker/7f")
    elsewhere = version_1(tmp_path / "2", "/docker/7f", {"": 300000, "docker/7f/": 100000}, mounted="/docker")
    outside = version_2(tmp_path / "3", "/../../own", {"": "250000 100000"})
    assert (cpu_quota(inside), cpu_quota(elsewhere), cpu_quota(outside)) == (3, 3, 2.5)


def test_both_versions_at_once_are_read(tmp_path: Path) -> None:
    groups, mounts = "4:cpu,cpuacct:/\n0::/a\n", f"{V1.format(root='/')}\n{V2}"
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/a/cpu.max": "300000 100000",
    }
    assert cpu_quota(machine(tmp_path, groups, mounts, files)) == 3


@pytest.mark.parametrize(
    ("limit", "usable"), [("max 100000", 8), ("150000 100000", 1.5), ("800000 100000", 8), ("9900000 100000", 8)]
)
def test_the_less_of_quota_and_affinity_is_usable(limit: str, usable: float, tmp_path: Path) -> None:
    assert usable_cores(version_2(tmp_path, "/", {"": limit})) == usable


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None and usable_cores(tmp_path) == 8


@pytest.mark.parametrize(("threads", "usable"), [(1, 1), (1, 1.5), (2, 2), (8, 8.0)])
def test_as_many_threads_as_cores_are_not_doubted(threads: int, usable: float) -> None:
    assert doubt(threads, usable) is None


@pytest.mark.parametrize(
    ("threads", "usable", "words"),
    [
        (1, 0.5, "may use 0.5 of a core: calls are throttled"),
        (4, 0.5, "may use 0.5 of a core"),
        (2, 1, "2 threads wait for one another on 1 core: 1 or fewer would not"),
        (3, 2.5, "3 threads wait for one another on 2.5 cores: 2 or fewer"),
    ],
)
def test_more_threads_than_cores_are_doubted(threads: int, usable: float, words: str) -> None:
    found = doubt(threads, usable)
    assert found is not None and words in found
