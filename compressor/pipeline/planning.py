"""From rankings to a plan: the widths that meet the target, and the proof that the cut is exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from compressor.budget.allocate import Budget, narrowest
from compressor.budget.costs.measure import measure_cost
from compressor.budget.targets.base import MEASURED, make_cost_model, multiple, target_of
from compressor.budget.targets.loss import Rise, smallest_within
from compressor.budget.targets.timed import Chase, profile, read_cost, settings_of, summary
from compressor.errors import InputError
from compressor.gates.settings import is_gate
from compressor.pipeline.context import Job
from compressor.pipeline.results import DENSE, FAULTS, PLAN, RANKINGS, RISE, SPEED
from compressor.pipeline.stages.select import read_rankings
from compressor.pipeline.store import produced
from compressor.report.rules import TARGET_TOLERANCE
from compressor.selection.base import Ranking
from compressor.structure import Plan, shrink
from compressor.structure.grouping.validation import faulty_groups
from compressor.structure.groups import Groups
from compressor.support.files import sha256, write_json
from exporters.operators import device

COUNTED, CORRECTIONS, FEW = 1e-3, 8, 1e-4
"""Share of the multiply-adds that a cost model may miss; how often a budget is corrected where it misses more; and the
least share that the model is asked for then."""


class Planner:
    """Chooses widths.

    Args:
        job: The recipe at work.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def profiled(self) -> Path:
        """Measure what operators cost at all widths."""
        section, table = self.job.recipe.benchmark, self.job.table

        def work(directory: Path) -> None:
            fresh = "profile" in self.job.stages.repeated
            profile(
                self.job.subject.model,
                self.job.subject.groups,
                section,
                table,
                self.job.export_plain,
                directory,
                self.job.journal,
                fresh=fresh,
            )

        depends_on = self.job.export_settings() | {"settings": settings_of(section), "device": device()}
        given = section.table and sha256(section.table)
        structure = self.job.recipe.compress.model_dump(mode="json", include={"keep", "inexact"})
        return self.job.stage("profile", depends_on | {"table": given} | structure, work)

    def plan(self, selected: Path, dense: Path) -> Path:
        """Choose the widths that meet the target, and prove that the cut is exact."""
        section, (kind, share) = self.job.recipe.compress, target_of(self.job.recipe.compress)

        def work(directory: Path) -> None:
            rankings = read_rankings(selected)
            groups, faults = self.job.subject.groups, dict[str, str]()
            while True:
                widths = self._widths(dense, groups, rankings, directory)
                plan = Plan.of(groups, {name: rankings[name].order[:width] for name, width in widths.items()})
                found = self._faults(plan)
                if not found:
                    break
                faults |= found
                groups = dataclasses.replace(groups, items=tuple(g for g in groups if g.name not in faults))
            plan.save(directory / PLAN)
            write_json(directory / FAULTS, faults)

        depends_on = section.model_dump(mode="json", include={"calibration", "keep", "inexact", "multiple_of"})
        depends_on |= {"selected": selected / RANKINGS, "target": [kind, share], **self.measured(dense)}
        if kind == "loss":
            depends_on |= {"refit": section.refit and section.refit_mixing}
        return self.job.stage("plan", depends_on, work)

    def measured(self, dense: Path) -> dict[str, list[Path]]:
        """What a target in time or in bytes depends on; nothing for others."""
        kind, _ = target_of(self.job.recipe.compress)
        depends_on = {"profile": produced(self.profiled)} if kind in MEASURED else {}
        return depends_on | ({"dense": produced(dense)} if kind in (*MEASURED, "size") else {})

    def budget(self, dense: Path) -> Budget:
        """What the plan has to meet."""
        section, (kind, share) = self.job.recipe.compress, target_of(self.job.recipe.compress)
        if kind in MEASURED:
            chase = self._chase(dense)
            return chase.budget(chase.speedup(kind, share))
        cost = make_cost_model(kind, self.job.subject.model, self.job.subject.groups)
        wanted = share if kind != "size" else _weights_share(share, dense / DENSE, cost.dense)
        return Budget(cost, wanted, multiple(section))

    def _widths(self, dense: Path, groups: Groups, rankings: Mapping[str, Ranking], directory: Path) -> dict[str, int]:
        """Choose widths that meet the target; where that is measured, write down how."""
        kind, value = target_of(self.job.recipe.compress)
        if kind == "loss":
            return self._within(value, groups, rankings, directory)
        if kind == "macs":
            return self._counted(value, self.budget(dense), groups, rankings)
        if kind not in MEASURED:
            return self.budget(dense).widths(groups, rankings)
        chase = self._chase(dense)
        target = chase.speedup(kind, value)
        attempts = chase.attempts(target, groups, rankings)
        write_json(directory / SPEED, summary(chase, groups, target, attempts))
        return attempts[-1].widths

    def _counted(self, share: float, budget: Budget, groups: Groups, rankings: Mapping[str, Ranking]) -> dict[str, int]:
        """Choose widths whose multiply-adds, counted in the shrunk network, meet the target.

        The cost model knows those of layers. Where products of activations come on top (attention), the budget is
        corrected until what is counted is right.
        """
        subject = self.job.subject
        widths = budget.widths(groups, rankings)
        if abs(budget.cost.dense / subject.cost.macs - 1) < COUNTED:
            return widths
        most, best = 0.0, None
        for _ in range(CORRECTIONS):
            plan = Plan.of(groups, {name: rankings[name].order[:width] for name, width in widths.items()})
            counted = measure_cost(shrink(subject.model, plan), subject.inputs).macs / subject.cost.macs
            if most < counted <= share:
                most, best = counted, widths
            if share * (1 - TARGET_TOLERANCE) <= counted <= share:
                break
            wanted = budget.share + (share - counted) * subject.cost.macs / budget.cost.dense
            try:
                budget = dataclasses.replace(budget, share=min(1.0, max(FEW, wanted)))
                widths = budget.widths(groups, rankings)
            except InputError as error:
                cure = "raise the target (`compressor inspect` shows the smallest), or let more layers be pruned"
                problem = f"{share:g} of the dense macs cannot be reached: what multiplies activations stays"
                raise InputError(problem, where="compress.target.macs", cure=cure) from error
        return best or widths

    def _within(self, limit: float, groups: Groups, rankings: Mapping[str, Ranking], directory: Path) -> dict[str, int]:
        """Choose the widths with the fewest MACs whose loss rises no more than the limit, and write down how much."""
        section, subject, images = self.job.recipe.compress, self.job.subject, self.job.calibration[0]
        cost = make_cost_model("macs", subject.model, subject.groups)
        narrow = cost.total(narrowest(groups, cost, multiple_of=multiple(section))) / cost.dense
        mixing = section.refit_mixing if section.refit else None
        seed, task = self.job.recipe.seed, self.job.task
        rise = Rise(subject.model, groups, rankings, images, mixing=mixing, seed=seed, task=task)
        found = smallest_within(limit, groups, rankings, cost, rise, multiple_of=multiple(section), smallest=narrow)
        self.job.journal.say(f"{found.share:.1%} of the MACs raise the loss by {found.rise:.4g}")
        write_json(directory / RISE, {"rise": found.rise})
        return found.widths

    def _chase(self, dense: Path) -> Chase:
        job = self.job
        chase = Chase(
            job.subject.model,
            job.subject.groups,
            read_cost(self.profiled, job.subject.model, job.subject.groups),
            dense / DENSE,
            job.recipe.benchmark,
            job.recipe.compress.multiple_of,
            job.export_plain,
            job.journal,
            silent=job.recipe.compress.refit and not is_gate(job.recipe.compress),
        )
        if chase.doubt is None:
            return chase
        job.journal.say(f"plan: {chase.doubt}")
        return dataclasses.replace(
            chase, cost=make_cost_model("macs", job.subject.model, job.subject.groups), table_doubt=chase.doubt
        )

    def _faults(self, plan: Plan) -> dict[str, str]:
        """Groups for which masking and cutting do not give the same outputs, with the reason."""
        faults = faulty_groups(self.job.subject.model, plan, self.job.real_inputs)
        for name, reason in faults.items():
            self.job.journal.say(f"group {name} is left alone: {reason}")
        return faults


def _weights_share(share: float, dense_onnx: Path, weights: float) -> float:
    """Turn a share of the whole file into one of its weights: the graph around them stays."""
    size = dense_onnx.stat().st_size
    graph = size - weights
    if share * size <= graph:
        cure = f"ask for more than {graph / size:.3f}"
        raise InputError("the file's graph alone is larger", where="compress.target.size", cure=cure)
    return (share * size - graph) / weights
