"""The network, cut, with its consumers solved again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from compressor.gates.settings import is_gate
from compressor.pipeline.context import RunContext
from compressor.pipeline.stages.compact import CompactStage
from compressor.pipeline.stages.learn_gates import LearnGates
from compressor.pipeline.stages.plan import ChoosePlan
from compressor.pipeline.stages.quality import assess
from compressor.pipeline.stages.select import RankingStage
from compressor.refit import Refit, refit, summary
from compressor.structure import Plan, save_compact, shrink
from compressor.support.files import read_facts, write_facts
from compressor.tasks import agreement

REFITS = "refits.json"


class Shrink(CompactStage):
    """Cuts the network by the plan.

    Args:
        context: What all stages share.
        planned: Chooses the plan.
        selected: Ranked the units, and perhaps trained weights while it did.
    """

    name = "shrink"

    def __init__(self, context: RunContext, planned: ChoosePlan, selected: RankingStage) -> None:
        super().__init__(context)
        self.planned, self.selected = planned, selected

    def depends_on(self) -> Mapping[str, Any]:
        section = self.context.recipe.compress
        known = section.model_dump(mode="json", include={"calibration", "keep", "inexact"})
        weights = {"trained": self.selected.trained, "refit": section.refit and section.refit_mixing}
        return known | {"plan": self.planned.file} | weights

    def work(self, directory: Path) -> None:
        context, section = self.context, self.context.recipe.compress
        context.check_memory()
        plan, model, refits = Plan.load(self.planned.file), context.loaded.model, list[Refit]()
        if section.refit:
            model, refits = self._refit(plan)
        small = shrink(model, plan)
        if isinstance(self.selected, LearnGates):
            trained = shrink(self.selected.load_trained(), plan)
            if not refits or self._is_nearer(trained, small):
                small, refits = trained, []
        if refits:
            write_facts(directory / REFITS, refits)
        save_compact(small, plan, directory)
        assess(context, small, directory, "pruned")

    def _refit(self, plan: Plan) -> tuple[nn.Module, list[Refit]]:
        context, groups = self.context, self.context.loaded.groups
        mixing, seed = context.recipe.compress.refit_mixing, context.recipe.seed
        if is_gate(context.recipe.compress):  # its own weights may be the better ones, and their branches add something
            groups = dataclasses.replace(groups, shifts={})
        images = context.calibration[0]
        with context.journal.bar("refit") as advance:
            fitted, done = refit(
                context.loaded.model, plan, images, groups=groups, mixing=mixing, seed=seed, progress=advance
            )
        context.journal.say(summary(done))
        return fitted, done

    def _is_nearer(self, trained: nn.Module, refitted: nn.Module) -> bool:
        """Whether what trained with the gates is nearer to the dense network than what was solved again after them."""
        dense, others, task = self.context.loaded.model, self.context.others, self.context.task
        ours, theirs = (agreement(network, dense, others, task) for network in (trained, refitted))
        chosen = "gate-trained" if ours >= theirs else "refitted"
        self.context.journal.say(
            f"{task.agreement_label}: gate-trained {ours:.1%}, refitted {theirs:.1%}; keeping the {chosen} weights"
        )
        return ours >= theirs

    @property
    def refits(self) -> list[Refit]:
        """What was solved again, layer by layer; nothing where nothing was."""
        file = self.directory / REFITS
        return read_facts(file, list[Refit]) if file.exists() else []
