"""The latency table of a network: measured, or taken from elsewhere, and read as a cost model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from compressor.budget.costs.base import CostModel
from compressor.budget.costs.macs import Macs
from compressor.budget.latency.model import Latency
from compressor.budget.latency.profile import TABLE, fits, measure_table, tables_folder
from compressor.budget.latency.skeleton import AXES, Skeleton
from compressor.errors import InputError
from compressor.recipe import BenchmarkSection
from compressor.structure.groups import Groups
from compressor.support.progress import Journal
from exporters.latency_table import LatencyTable
from exporters.providers import find_provider

WHY_NOT = "no-table.txt"


Export = Callable[[nn.Module, Path], None]


def settings_of(section: BenchmarkSection) -> dict[str, Any]:
    """What a latency table depends on, besides the network and the device: the first setting is the one that counts."""
    return {"provider": section.provider, "threads": section.threads, "batch": section.batch_sizes[0]}


def learn_skeleton(model: nn.Module, groups: Groups, section: BenchmarkSection, export: Export) -> Skeleton:
    """The network's file as a function of its widths.

    Raises:
        InputError: there can be no latency table of this network, or with this provider.
    """
    if not find_provider(section.provider).times_operators:
        cure = "give a target in speedup all the same: candidates are measured as a whole"
        raise InputError(f"no operators are timed on {section.provider}", where="benchmark.provider", cure=cure)
    return Skeleton.learn(model, groups, export)


def profile(
    model: nn.Module,
    groups: Groups,
    section: BenchmarkSection,
    given: LatencyTable | None,
    export: Export,
    directory: Path,
    journal: Journal,
    *,
    fresh: bool = False,
) -> None:
    """Write the latency table of a network into a directory, and the network as a function of its widths.

    Where there can be none, the reason is written instead.

    Args:
        model: The network.
        groups: Its channel groups.
        section: How latency is measured.
        given: A table that is there already, perhaps of another device.
        export: Writes a network as an ONNX file.
        directory: Where to write.
        journal: Told how it goes.
        fresh: Measure again what an earlier run has measured.

    Raises:
        InputError: the given table is of other settings, or of another network.
    """
    settings = settings_of(section)
    try:
        skeleton = learn_skeleton(model, groups, section, export)
    except InputError as error:
        journal.say(
            f"no latency table: {error.problem}; using MACs as a proxy for latency until candidates are measured"
        )
        (directory / WHY_NOT).write_text(error.problem)
        return
    if given is None:
        with journal.bar("profile") as advance:
            given = measure_table(
                skeleton,
                groups,
                settings,
                tables_folder(),
                fresh=fresh,
                progress=advance,
                say=journal.say,
            )
    elif problem := fits(given, settings, groups):
        cure = "measure it again, with `compressor profile RECIPE --kit DIR` for another device"
        raise InputError(problem, where=str(section.table), cure=cure)
    given.save(directory / TABLE)
    skeleton.save(directory)


def read_cost(directory: Path, model: nn.Module, groups: Groups) -> CostModel:
    """The cost model that `profile` wrote; multiply-adds where there is no table."""
    if not (directory / AXES).exists():
        return Macs(model, groups)
    return Latency(LatencyTable.load(directory / TABLE), Skeleton.load(directory), groups)
