"""What a process may still take: the machine, the container and every control group around it have a say."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.support.headroom import available_memory

MIB = 2**20
MEMINFO = "MemTotal:       16000000 kB\nMemAvailable:    8192 kB\nSwapTotal: 0 kB\nSwapFree:        2048 kB\n"


def tree(root: Path, **files: str) -> Path:
    """A fake root; names have `__` for the slash and `_DOT_` for the dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_control_groups_it_is_what_the_machine_has_with_its_swap(tmp_path: Path) -> None:
    assert available_memory(tree(tmp_path, proc__meminfo=MEMINFO)) == 10 * MIB


def test_an_unknown_system_says_nothing(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


def test_the_real_machine_has_some() -> None:
    size = available_memory()
    assert size is None or size > MIB


V2 = {
    "proc__meminfo": MEMINFO,
    "proc__self__cgroup": "0::/slice/job\n",
    "sys__fs__cgroup__slice__job__memory_DOT_max": "max\n",
    "sys__fs__cgroup__slice__job__memory_DOT_current": f"{MIB}\n",
    "sys__fs__cgroup__slice__memory_DOT_max": f"{5 * MIB}\n",
    "sys__fs__cgroup__slice__memory_DOT_current": f"{4 * MIB}\n",
    "sys__fs__cgroup__slice__memory_DOT_stat": f"anon 7\ninactive_file {2 * MIB}\n",
}
V1 = {
    "proc__meminfo": MEMINFO,
    "proc__self__cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n",
    "sys__fs__cgroup__memory__memory_DOT_limit_in_bytes": f"{5 * MIB}\n",
    "sys__fs__cgroup__memory__memory_DOT_usage_in_bytes": f"{4 * MIB}\n",
    "sys__fs__cgroup__memory__memory_DOT_stat": f"inactive_file 0\ntotal_inactive_file {2 * MIB}\n",
}


@pytest.mark.parametrize("files", [V2, V1])
def test_the_tightest_group_around_the_process_counts_and_idle_files_are_free(
    tmp_path: Path, files: dict[str, str]
) -> None:
    assert available_memory(tree(tmp_path, **files)) == 3 * MIB


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_a_group_without_a_limit_leaves_what_the_machine_has(tmp_path: Path, limit: str) -> None:
    files = V2 | {"sys__fs__cgroup__slice__memory_DOT_max": limit}
    assert available_memory(tree(tmp_path, **files)) == 10 * MIB


def test_a_group_that_is_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    files = V2 | {"sys__fs__cgroup__slice__memory_DOT_current": f"{9 * MIB}"}
    assert available_memory(tree(tmp_path, **files)) == 0
