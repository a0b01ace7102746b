"""A fraction of the dense network that is kept, in multiply-adds, parameters or bytes."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from compressor.budget.targets.base import Choice, Problem, Target, make_cost_model
from compressor.errors import InputError
from compressor.support.units import percent

if TYPE_CHECKING:
    from torch import nn

    from compressor.budget.allocate import Budget
    from compressor.report import Report
    from compressor.selection.base import Ranking
    from compressor.structure.groups import Groups

COUNTED = 1e-3
"""Fraction of the multiply-adds that a cost model may miss."""
CORRECTIONS = 8
"""How often a budget is corrected where the cost model misses more than that."""
MIN_SHARE = 1e-4
"""The least fraction that a cost model is asked for then."""


class ShareTarget(Target):
    """A fraction that is kept of something that can be computed.

    Attributes:
        words: What the fraction is of; widths are whole numbers, so that it may be missed by a little.
    """

    most = 1.0
    tolerance = 0.01
    words: ClassVar[str]

    def check(self, model: nn.Module, groups: Groups, multiple_of: int) -> None:
        from compressor.budget.allocate import narrowest

        cost = make_cost_model(self.name, model, groups)
        smallest = cost.total(narrowest(groups, cost, multiple_of=multiple_of)) / cost.dense
        if self.value < smallest:
            cure = f"ask for at least {math.ceil(1000 * smallest) / 1000:.3f}, or let more layers be pruned"
            raise InputError(f"{self.value:g} cannot be reached", where=f"compress.target.{self.name}", cure=cure)

    def budget(self, problem: Problem) -> Budget:
        from compressor.budget.allocate import Budget

        return Budget(problem.cost(self.name), self.value, problem.multiple_of)

    def choose(self, problem: Problem, groups: Groups, rankings: Mapping[str, Ranking]) -> Choice:
        return Choice(self.budget(problem).widths(groups, rankings))

    @abstractmethod
    def amount(self, report: Report, variant: str) -> float | None:
        """What a variant of a run has of it."""

    def measure(self, report: Report) -> float | None:
        dense, delivered = self.amount(report, "dense"), self.amount(report, report.delivered)
        return delivered / dense if dense and delivered is not None else None

    def meaning(self, report: Report) -> str:
        return f"share of {self.words} that is kept, at most 1 % above the target"

    def format(self, value: float) -> str:
        return percent(value)


class MacsTarget(ShareTarget):
    """A fraction of the multiply-adds."""

    name = words = "macs"
    summary = "Fraction of the multiply-adds to keep."

    @property
    def share(self) -> float:
        return self.value

    def amount(self, report: Report, variant: str) -> float:
        return report.network(variant).macs

    def choose(self, problem: Problem, groups: Groups, rankings: Mapping[str, Ranking]) -> Choice:
        """Choose widths whose multiply-adds, counted in the shrunk network, meet the target.

        The cost model knows those of layers. Where products of activations come on top (attention), the budget is
        corrected until what is counted is right.
        """
        budget = self.budget(problem)
        widths = budget.widths(groups, rankings)
        if abs(budget.cost.dense / problem.macs - 1) < COUNTED:
            return Choice(widths)
        most, best = 0.0, None
        for _ in range(CORRECTIONS):
            counted = self._counted(problem, groups, rankings, widths)
            if most < counted <= self.value:
                most, best = counted, widths
            if self.value * (1 - self.tolerance) <= counted <= self.value:
                break
            wanted = budget.share + (self.value - counted) * problem.macs / budget.cost.dense
            try:
                budget = dataclasses.replace(budget, share=min(1.0, max(MIN_SHARE, wanted)))
                widths = budget.widths(groups, rankings)
            except InputError as error:
                cure = "raise the target (`compressor inspect` shows the smallest), or let more layers be pruned"
                text = f"{self.value:g} of the dense macs cannot be reached: what multiplies activations stays"
                raise InputError(text, where="compress.target.macs", cure=cure) from error
        return Choice(best or widths)

    def _counted(
        self, problem: Problem, groups: Groups, rankings: Mapping[str, Ranking], widths: Mapping[str, int]
    ) -> float:
        from compressor.budget.costs.measure import measure_cost
        from compressor.structure import Plan, shrink

        small = shrink(problem.model, Plan.from_rankings(groups, rankings, widths))
        return measure_cost(small, problem.inputs).macs / problem.macs


class ParamsTarget(ShareTarget):
    """A fraction of the parameters."""

    name = words = "params"
    summary = "Fraction of the parameters to keep."

    def amount(self, report: Report, variant: str) -> float:
        return report.network(variant).params


class SizeTarget(ShareTarget):
    """A fraction of the ONNX file's bytes."""

    name = "size"
    summary = "Fraction of the bytes of the ONNX file to keep."
    words = "the ONNX file"
    reads = ("dense",)

    def amount(self, report: Report, variant: str) -> float | None:
        return report.files[variant].bytes

    def budget(self, problem: Problem) -> Budget:
        """The graph around the weights stays: a fraction of the file is a smaller one of its weights."""
        from compressor.budget.allocate import Budget

        cost, size = problem.cost(self.name), problem.dense().stat().st_size
        graph = size - cost.dense
        if self.value * size <= graph:
            cure = f"ask for more than {graph / size:.3f}"
            raise InputError("the file's graph alone is larger", where="compress.target.size", cure=cure)
        return Budget(cost, (self.value * size - graph) / cost.dense, problem.multiple_of)
