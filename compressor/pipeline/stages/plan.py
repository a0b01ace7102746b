"""From rankings to a plan: the widths that meet the target, and the proof that the cut is exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.budget.allocate import Budget
from compressor.budget.targets.base import Problem, Target, make_target
from compressor.gates.settings import is_gate
from compressor.pipeline.context import RunContext
from compressor.pipeline.stages.base import Stage
from compressor.pipeline.stages.export_dense import ExportDense
from compressor.pipeline.stages.profile import Profile
from compressor.pipeline.stages.select import RankingStage
from compressor.pipeline.store import produced
from compressor.structure import Plan
from compressor.structure.grouping.validation import faulty_groups
from compressor.structure.store import PLAN
from compressor.support.files import read_json, write_facts, write_json

FAULTS, NOTES = "faults.json", "notes.json"


class Question:
    """What widths are asked for: the target of the recipe, and the stages that it is about.

    Args:
        context: What all stages share.
        dense: Writes the dense network's file.
        profile: Measures the latency table.
    """

    def __init__(self, context: RunContext, dense: ExportDense, profile: Profile) -> None:
        self.context, self.dense, self.profile = context, dense, profile
        self.target: Target = make_target(context.recipe.compress.target.asked)

    def depends_on(self) -> Mapping[str, Any]:
        """The target, and what it reads besides the rankings."""
        section, reads = self.context.recipe.compress, self.target.reads
        return {
            "target": [self.target.name, self.target.value],
            "profile": produced(self.profile.directory) if "table" in reads else None,
            "dense": produced(self.dense.directory) if "dense" in reads else None,
            "refit": (section.refit and section.refit_mixing) if "refit" in reads else None,
        }

    @property
    def problem(self) -> Problem:
        """What the target may ask about the network."""
        context, section, loaded = self.context, self.context.recipe.compress, self.context.loaded
        return Problem(
            model=loaded.model,
            groups=loaded.groups,
            inputs=loaded.inputs,
            macs=loaded.cost.macs,
            given_multiple=section.multiple_of,
            benchmark=context.recipe.benchmark,
            dense=lambda: self.dense.file,
            profiled=lambda: self.profile.directory,
            images=lambda: context.calibration[0],
            mixing=section.refit_mixing if section.refit else None,
            silent=section.refit and not is_gate(section),
            seed=context.recipe.seed,
            export=context.export_plain,
            journal=context.journal,
            task=context.task,
        )

    def budget(self) -> Budget:
        """What gates learn under."""
        return self.target.budget(self.problem)


class ChoosePlan(Stage):
    """Chooses the widths that meet the target, and proves that the cut is exact.

    Args:
        context: What all stages share.
        question: What widths are asked for.
        selected: Ranks the units.
    """

    name = "plan"

    def __init__(self, context: RunContext, question: Question, selected: RankingStage) -> None:
        super().__init__(context)
        self.question, self.selected = question, selected

    def depends_on(self) -> Mapping[str, Any]:
        section = self.context.recipe.compress
        known = section.model_dump(mode="json", include={"calibration", "keep", "inexact", "multiple_of"})
        return known | {"selected": self.selected.file} | dict(self.question.depends_on())

    def work(self, directory: Path) -> None:
        rankings, groups, faults = self.selected.rankings, self.context.loaded.groups, dict[str, str]()
        while True:
            choice = self.question.target.choose(self.question.problem, groups, rankings)
            plan = Plan.from_rankings(groups, rankings, choice.widths)
            found = self._faults(plan)
            if not found:
                break
            faults |= found
            groups = dataclasses.replace(groups, items=tuple(g for g in groups if g.name not in faults))
        plan.save(directory / PLAN)
        write_json(directory / FAULTS, faults)
        write_facts(directory / NOTES, dict(choice.notes))

    def _faults(self, plan: Plan) -> dict[str, str]:
        """Groups for which masking and cutting do not give the same outputs, with the reason."""
        faults = faulty_groups(self.context.loaded.model, plan, self.context.real_inputs)
        for name, reason in faults.items():
            self.context.journal.say(f"group {name} is left alone: {reason}")
        return faults

    @property
    def file(self) -> Path:
        """The plan."""
        return self.directory / PLAN

    @property
    def faults(self) -> dict[str, str]:
        """Why groups were left alone, by their names."""
        return dict(read_json(self.directory / FAULTS))

    @property
    def notes(self) -> dict[str, Any]:
        """What the report is to tell about the way to the target, by the names of its keys."""
        return dict(read_json(self.directory / NOTES))
