"""The rankings of all groups, on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from compressor.pipeline.results import RANKINGS
from compressor.selection.base import Ranking
from compressor.support.files import read_json, write_json


def write_rankings(directory: Path, rankings: Mapping[str, Ranking]) -> None:
    """Write the rankings of all groups to the directory of a stage."""
    write_json(directory / RANKINGS, {name: asdict(ranking) for name, ranking in rankings.items()})


def read_rankings(directory: Path) -> dict[str, Ranking]:
    """Read what `write_rankings` wrote."""
    stored = read_json(directory / RANKINGS)
    return {name: Ranking(tuple(r["order"]), tuple(r["error"])) for name, r in stored.items()}
