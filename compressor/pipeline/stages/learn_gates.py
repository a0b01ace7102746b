"""Which units matter, learned: gates that train together with the network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from compressor.gates.history import GateEpoch
from compressor.gates.settings import EPOCHS, read_gate
from compressor.gates.trainer import train_gates
from compressor.pipeline.context import RunContext
from compressor.pipeline.stages.finetune import teller
from compressor.pipeline.stages.plan import Question
from compressor.pipeline.stages.select import RankingStage, Select, write_rankings
from compressor.pipeline.store import UNFINISHED
from compressor.structure import Plan, load_compact, save_compact
from compressor.structure.store import WEIGHTS
from compressor.support.files import read_facts, write_facts

GATES = "gates.json"


class LearnGates(RankingStage):
    """Ranks the units of every group by gates that learn while the network trains.

    Args:
        context: What all stages share.
        question: What widths are asked for.
    """

    name = "gates"
    together = True

    def __init__(self, context: RunContext, question: Question) -> None:
        super().__init__(context)
        self.question = question

    @cached_property
    def first(self) -> Select | None:
        """The ranking that the gates start from; None where they start open."""
        return Select(self.context) if self.context.method else None

    @cached_property
    def settings(self) -> Any:
        """How the network trains meanwhile."""
        section = self.context.recipe.compress
        return self.context.resolved.finetune.model_copy(update={"epochs": section.epochs or EPOCHS})

    def depends_on(self) -> Mapping[str, Any]:
        known = self.context.recipe.compress.model_dump(mode="json", exclude={"refit", "calibration"})
        first = self.first and self.first.file
        return known | {"first": first, "training": self.settings.model_dump(), "measured": self.question.depends_on()}

    def work(self, directory: Path) -> None:
        context, section = self.context, self.context.recipe.compress
        make, options = read_gate(section)
        with context.journal.bar(f"gates ({section.method})") as advance:
            learned = train_gates(
                context.loaded.model,
                context.loaded.groups,
                context.data.train or (),
                make,
                options,
                self.question.budget(),
                self.settings,
                first=self.first.rankings if self.first else None,
                task=context.task,
                seed=context.recipe.seed,
                checkpoint=directory / UNFINISHED / "training.pt",
                progress=teller(context.journal, advance, "gates"),
            )
        write_rankings(directory, learned.rankings)
        write_facts(directory / GATES, learned.movements)
        save_compact(learned.model, Plan(()), directory)

    @property
    def trained(self) -> Path:
        return self.directory / WEIGHTS

    def load_trained(self) -> nn.Module:
        """The network of the original widths as it came out of the training."""
        return load_compact(self.directory, self.context.loaded.model)

    @property
    def curve(self) -> list[GateEpoch]:
        """What the gates did, by epochs."""
        return read_facts(self.directory / GATES, list[GateEpoch])
