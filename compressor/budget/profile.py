"""Measuring the latency table of a network, here or, with a kit, on another device."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor.budget.choices import choose_widths
from compressor.budget.skeleton import Skeleton
from compressor.structure.groups import Groups
from exporters import operators
from exporters.latency_table import LatencyTable
from exporters.operators import device, measure_operators


def measure_table(
    skeleton: Skeleton, groups: Groups, settings: Mapping[str, Any], progress: Callable[[int, int], None] | None = None
) -> LatencyTable:
    """Measure the table on this device.

    Args:
        skeleton: The network as a function of its widths.
        groups: Its channel groups.
        settings: `provider`, `threads` and `batch`; whatever else is given is kept in the table.
        progress: Called with (done, total) networks.
    """
    widths = choose_widths(groups)
    measured = measure_operators(
        [skeleton.at(choice) for choice in widths],
        provider=settings["provider"],
        threads=settings["threads"],
        batch=settings["batch"],
        progress=progress,
    )
    return LatencyTable(device(), dict(settings), tuple(widths), tuple(measured))


def write_kit(skeleton: Skeleton, groups: Groups, settings: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write what measures the table on a device that has ONNX Runtime and NumPy only.

    Returns:
        The files: one network each, `kit.json` and `measure.py`, which writes `table.json`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    widths = choose_widths(groups)
    files = [directory / f"{number:04}.onnx" for number in range(len(widths))]
    for path, choice in zip(files, widths, strict=True):
        path.write_bytes(skeleton.at(choice))
    kit = {"settings": dict(settings), "files": [path.name for path in files], "widths": widths}
    (directory / "kit.json").write_text(json.dumps(kit))
    shutil.copyfile(operators.__file__, directory / "measure.py")
    return [*files, directory / "kit.json", directory / "measure.py"]


def fits(table: LatencyTable, settings: Mapping[str, Any], groups: Groups) -> str | None:
    """Why a table is not about these settings and groups, or None."""
    for key, value in settings.items():
        if table.settings.get(key) != value:
            return f"its {key} is {table.settings.get(key)}, the recipe's is {value}"
    names = _named(table.widths)
    missing = [group.name for group in groups if group.name not in names]
    return f"it does not know the group {missing[0]}" if missing else None


def _named(widths: Sequence[Mapping[str, int]]) -> set[str]:
    return {name for choice in widths for name in choice}
