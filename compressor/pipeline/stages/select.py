"""Which units matter: a ranking of every group."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compressor.gates.settings import is_gate
from compressor.pipeline.stages.base import Stage
from compressor.selection.base import Calibration, Ranking
from compressor.selection.checked import rank
from compressor.support import plugins
from compressor.support.files import read_json, write_json

RANKINGS = "rankings.json"


class RankingStage(Stage):
    """A stage that leaves a ranking of every group."""

    @property
    def file(self) -> Path:
        """The rankings."""
        return self.directory / RANKINGS

    @property
    def rankings(self) -> dict[str, Ranking]:
        """By the names of the groups."""
        return read_rankings(self.directory)

    @property
    @abstractmethod
    def trained(self) -> Path | None:
        """The weights that came out of the ranking; None where it trains nothing."""


class Select(RankingStage):
    """Ranks the units of every group by a method that trains nothing."""

    name = "select"
    together = True
    trained = None

    def depends_on(self) -> Mapping[str, Any]:
        section, method = self.context.recipe.compress, self.context.method
        assert method is not None
        options = {} if is_gate(section) else section.options
        known = section.model_dump(mode="json", include={"calibration", "keep", "inexact"})
        code = plugins.code_of(type(method))
        return known | {"method": method.name, "options": options} | ({"code": code} if code else {})

    def work(self, directory: Path) -> None:
        context, method = self.context, self.context.method
        assert method is not None
        context.check_memory()
        images, labels = context.calibration
        loaded, seed = context.loaded, context.recipe.seed
        with context.journal.bar(f"select ({method.name})") as advance:
            given = Calibration(loaded.model, loaded.groups, images, labels, seed, advance, context.task)
            rankings = rank(method, given, where="compress.method")
        write_rankings(directory, rankings)


def write_rankings(directory: Path, rankings: Mapping[str, Ranking]) -> None:
    """Write the rankings of all groups to the directory of a stage."""
    write_json(directory / RANKINGS, {name: asdict(ranking) for name, ranking in rankings.items()})


def read_rankings(directory: Path) -> dict[str, Ranking]:
    """Read what `write_rankings` wrote."""
    stored = read_json(directory / RANKINGS)
    return {name: Ranking(tuple(r["order"]), tuple(r["error"])) for name, r in stored.items()}
