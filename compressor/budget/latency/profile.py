"""Measuring the latency table of a network, here or, with a kit, on another device."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from compressor.budget.latency.model import Latency
from compressor.budget.latency.sampling import choose_widths
from compressor.budget.latency.skeleton import Skeleton
from compressor.errors import InputError
from compressor.structure.groups import Groups
from compressor.support import hashing
from exporters import clock, cores, errors, operators, providers
from exporters.latency_table import LatencyTable
from exporters.operators import Measured, device, measure_operators, merged

TABLE, TURNS = "table.json", "turns.json"
FEWEST, FIRST = 24, 48
"""Networks that are measured at least; and those that are measured twice where the first time was not enough."""
KIT = 64
"""Networks of a kit: on the other device nobody can tell when they are enough."""
KIT_MODULES = (clock, cores, errors, providers)
"""What `measure.py` imports of `exporters`."""
GOOD, FAIR = 0.025, 0.03
"""Held-out errors at which no more networks are measured, and from which on the first ones are not measured again."""


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

    As many networks are measured as it takes to predict those that are left out. Where the first ones are not predicted
    well, they are measured once more, against noise, and then others, against what the fit cannot tell apart.

    Args:
        skeleton: The network as a function of its widths.
        groups: Its channel groups.
        settings: `provider`, `threads` and `batch`; whatever else is given is kept in the table.
        folder: Where tables are kept from one call to the next, and the turns of an interrupted one.
        fresh: Forget what is kept of this network.
        progress: Called with (done, total) networks.
        say: Told where a table that was measured before is, and since when.

    Raises:
        InputError: the folder cannot be written to.
    """
    widths = choose_widths(groups)
    about = json.dumps([dict(settings), device(), widths], sort_keys=True).encode()
    own = folder / hashing.of_contents(about, skeleton.at({}), skeleton.at(widths[-1]))[:16]
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
    first = range(min(FIRST, len(widths)))
    turns = [*first, *first, *range(len(first), len(widths))]
    by_operator = providers.find_provider(settings["provider"]).times_operators

    def table(measured: Sequence[Measured]) -> LatencyTable:
        together: dict[int, list[Measured]] = {}
        for index, entry in zip(turns, measured, strict=False):
            together.setdefault(index, []).append(entry)
        found = tuple(merged(entries) for entries in together.values())
        return LatencyTable(device(), dict(settings), tuple(widths[index] for index in together), found)

    def goes_on(measured: Sequence[Measured]) -> bool:
        named = tuple(widths[index] for index in turns[: len(measured)])
        LatencyTable(device(), dict(settings), named, tuple(measured)).save(own / TURNS)
        if len(measured) < min(FEWEST, len(widths)) or not by_operator:
            return True
        return Latency(table(measured), skeleton, groups).error > (GOOD if len(measured) < len(first) else FAIR)

    before = LatencyTable.load(own / TURNS).measured if (own / TURNS).exists() else ()
    measured = measure_operators(
        Networks(skeleton, widths),
        provider=settings["provider"],
        threads=settings["threads"],
        batch=settings["batch"],
        turns=turns,
        before=before,
        keep=goes_on,
        progress=progress,
    )
    table(measured).save(own / TABLE)
    (own / TURNS).unlink(missing_ok=True)
    return table(measured)


class Networks(Sequence[bytes]):
    """A network at several choices of widths, each made when it is needed."""

    def __init__(self, skeleton: Skeleton, widths: Sequence[Mapping[str, int]]) -> None:
        self._skeleton, self._widths = skeleton, widths

    def __len__(self) -> int:
        return len(self._widths)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._skeleton.at(self._widths[index])


def tables_folder() -> Path:
    """The user's folder for measured tables: `compressor/tables` in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "compressor", "tables")


def write_kit(skeleton: Skeleton, groups: Groups, settings: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write what measures the table on a device that has ONNX Runtime and NumPy only.

    Returns:
        The files: one network each, `kit.json` and `measure.py`, which writes `table.json`; and what that needs.
    """
    directory.mkdir(parents=True, exist_ok=True)
    widths = choose_widths(groups, KIT)
    files = [directory / f"{number:04}.onnx" for number in range(len(widths))]
    for path, choice in zip(files, widths, strict=True):
        path.write_bytes(skeleton.at(choice))
    kit = {"settings": dict(settings), "files": [path.name for path in files], "widths": widths}
    (directory / "kit.json").write_text(json.dumps(kit))
    script, package = directory / "measure.py", directory / "exporters"
    shutil.copyfile(operators.__file__, script)
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("")
    needed = [Path(shutil.copy(str(module.__file__), package)) for module in KIT_MODULES]
    return [*files, directory / "kit.json", script, package / "__init__.py", *needed]


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
