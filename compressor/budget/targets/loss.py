"""How much worse the loss may become before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from compressor.budget.targets.base import Choice, Problem, Target
from compressor.errors import InputError

if TYPE_CHECKING:
    from compressor.budget.allocate import Budget
    from compressor.report import Report
    from compressor.selection.base import Ranking
    from compressor.structure.groups import Groups


class LossTarget(Target):
    """The KL divergence to the dense network on held-out images that is allowed."""

    name = "loss"
    summary = (
        "Largest KL divergence to the dense network on held-out images, before fine-tuning, in nats; the fewest "
        "multiply-adds within it are kept."
    )
    reads = ("refit",)
    drives_gates = False
    refits = 8

    def budget(self, problem: Problem) -> Budget:
        where = f"compress.target.{self.name}"
        raise InputError("it has no budget before anything is measured", where=where, cure="choose another target")

    def choose(self, problem: Problem, groups: Groups, rankings: Mapping[str, Ranking]) -> Choice:
        """Choose the widths with the fewest multiply-adds whose loss rises no more than the target allows."""
        from compressor.budget.allocate import narrowest
        from compressor.budget.search.loss import KLIncrease, smallest_within

        cost, multiple_of = problem.cost("macs"), problem.multiple_of
        narrow = cost.total(narrowest(groups, cost, multiple_of=multiple_of)) / cost.dense
        mixing, seed, task = problem.mixing, problem.seed, problem.task
        increase = KLIncrease(problem.model, groups, rankings, problem.images(), mixing=mixing, seed=seed, task=task)
        found = smallest_within(self.value, groups, rankings, cost, increase, multiple_of=multiple_of, smallest=narrow)
        problem.journal.say(f"{found.share:.1%} of the MACs raise the loss by {found.rise:.4g}")
        return Choice(found.widths, {"rise": found.rise})

    def measure(self, report: Report) -> float | None:
        return report.rise

    def meaning(self, report: Report) -> str:
        measure = f"{report.quality.divergence} to the dense network on held-out images"
        return f"rise of the loss before fine-tuning: {measure}"
