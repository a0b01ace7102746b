"""Measuring the latency table of a network, here or, with a kit, on another device."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from compressor import fingerprint
from compressor.budget.choices import choose_widths
from compressor.budget.skeleton import Skeleton
from compressor.errors import InputError
from compressor.structure.groups import Groups
from exporters import operators
from exporters.latency_table import LatencyTable
from exporters.operators import Measured, device, measure_operators

TABLE, ROUND = "table.json", "round-{}.json"


def measure_table(
    skeleton: Skeleton,
    groups: Groups,
    settings: Mapping[str, Any],
    folder: Path,
    *,
    fresh: bool = False,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> LatencyTable:
    """Measure the table on this device, or read it where it was measured before.

    Args:
        skeleton: The network as a function of its widths.
        groups: Its channel groups.
        settings: `provider`, `threads` and `batch`; whatever else is given is kept in the table.
        folder: Where tables are kept from one call to the next, and the rounds of an interrupted one.
        fresh: Forget what is kept of this network.
        progress: Called with (done, total) networks.
        say: Told where a table that was measured before is, and since when.

    Raises:
        InputError: the folder cannot be written to.
    """
    widths = choose_widths(groups)
    networks = [skeleton.at(choice) for choice in widths]
    about = json.dumps([dict(settings), device()], sort_keys=True).encode()
    own = folder / fingerprint.of_contents(about, *networks)[:16]
    if fresh and own.exists():
        shutil.rmtree(own)
    if (own / TABLE).exists():
        since = datetime.fromtimestamp((own / TABLE).stat().st_mtime)
        say(f"profile: measured on this device before, {since:%Y-%m-%d %H:%M}: {own / TABLE}; --fresh measures again")
        return LatencyTable.load(own / TABLE)
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cure = "set XDG_CACHE_HOME to a folder that may be written to"
        raise InputError(f"tables cannot be kept ({error.strerror})", where=str(folder), cure=cure) from error
    rounds = [LatencyTable.load(path).measured for path in sorted(own.glob(ROUND.format("*")))]

    def keep(measured: Sequence[Measured]) -> None:
        rounds.append(tuple(measured))
        table(measured).save(own / ROUND.format(len(rounds)))

    def table(measured: Sequence[Measured]) -> LatencyTable:
        return LatencyTable(device(), dict(settings), tuple(widths), tuple(measured))

    measured = measure_operators(
        networks,
        provider=settings["provider"],
        threads=settings["threads"],
        batch=settings["batch"],
        progress=progress,
        before=tuple(rounds),
        keep=keep,
    )
    table(measured).save(own / TABLE)
    for path in own.glob(ROUND.format("*")):
        path.unlink()
    return table(measured)


def tables_folder() -> Path:
    """The user's folder for measured tables: `compressor/tables` in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "compressor", "tables")


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
