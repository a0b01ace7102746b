"""What can be asked of a network: a budget, how widths meet it, and how a run is judged by it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.support import plugins

if TYPE_CHECKING:  # a report is judged without torch
    from torch import Tensor, nn

    from compressor.budget.allocate import Budget
    from compressor.budget.costs.base import CostModel
    from compressor.recipe import BenchmarkSection
    from compressor.report import Report
    from compressor.selection.base import Ranking
    from compressor.structure.groups import Groups
    from compressor.support.batches import Batch
    from compressor.support.progress import Journal
    from compressor.tasks import Task

USUAL_ALIGNMENT = 4
"""Widths that are no multiples of this leave the fast path on most devices."""
PACKAGE = "compressor.budget.targets"


@dataclass(frozen=True)
class Problem:
    """A network that widths are chosen for, and what a target may ask about it.

    Attributes:
        model: The dense network.
        groups: Its channel groups.
        inputs: Inputs that it takes.
        macs: Multiply-adds of one input, counted while it ran.
        given_multiple: What widths are to be multiples of; None leaves that to the device.
        benchmark: How latency is measured.
        dense: Gives the dense network's ONNX file.
        profiled: Gives the directory with the latency table.
        images: Gives batches of calibration inputs.
        mixing: Of the refit; None where weights stay as they are.
        silent: Whether branches that vanish will add nothing.
        seed: Of the refit.
        export: Writes a network as an ONNX file.
        journal: Told about every attempt.
        task: What the network is for.
    """

    model: nn.Module
    groups: Groups
    inputs: tuple[Tensor, ...]
    macs: int
    given_multiple: int | None
    benchmark: BenchmarkSection
    dense: Callable[[], Path]
    profiled: Callable[[], Path]
    images: Callable[[], Sequence[Batch]]
    mixing: float | None
    silent: bool
    seed: int
    export: Callable[[nn.Module, Path], None]
    journal: Journal
    task: Task

    @property
    def multiple_of(self) -> int:
        """What widths are multiples of where no device was measured."""
        return self.given_multiple or USUAL_ALIGNMENT

    def cost(self, kind: str) -> CostModel:
        """A cost model of the network, by its name."""
        return make_cost_model(kind, self.model, self.groups)


@dataclass(frozen=True)
class Choice:
    """Widths that meet a target.

    Attributes:
        widths: Kept units by the name of the group.
        notes: What the report is to tell about the way there, by the names of its keys.
    """

    widths: dict[str, int]
    notes: Mapping[str, Any] = field(default_factory=dict)


class UnjudgedError(Exception):
    """Why a run cannot be judged by what it has measured."""


class Target(ABC):
    """Something that is asked for: `compress.target: {name: value}` in a recipe.

    Args:
        value: How much of it.

    Attributes:
        name: In recipes and reports.
        summary: What the value means, for the reference of the recipe.
        above, most: The value is more than the first and at most the second.
        sign: `≤` or `≥`, between what is measured and what is asked for.
        tolerance: By what fraction of it the value may be missed.
        reads: What widths depend on, besides the rankings: `table`, `dense` (the dense file), `refit`.
        drives_gates: Whether gates can learn under it: it has a budget before anything is measured.
        exports, refits: About how many networks are exported and measured, or refitted and evaluated, on the way.
        max_refit_macs: Multiply-adds of all calibration images from which on nothing is refitted on the way.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    above: ClassVar[float] = 0.0
    most: ClassVar[float] = math.inf
    sign: ClassVar[str] = "≤"
    tolerance: ClassVar[float] = 0.0
    reads: ClassVar[tuple[str, ...]] = ()
    drives_gates: ClassVar[bool] = True
    exports: ClassVar[int] = 0
    refits: ClassVar[int] = 0
    max_refit_macs: ClassVar[float] = math.inf

    def __init__(self, value: float) -> None:
        self.value = value

    @property
    def share(self) -> float | None:
        """About how much of the network will be left; None where that cannot be told yet."""
        return None

    def check(self, model: nn.Module, groups: Groups, multiple_of: int) -> None:  # noqa: B027 - most need no check
        """Refuse what no choice of widths reaches.

        Raises:
            InputError: with what can be reached.
        """

    @abstractmethod
    def budget(self, problem: Problem) -> Budget:
        """The budget that the target amounts to before anything is measured."""

    @abstractmethod
    def choose(self, problem: Problem, groups: Groups, rankings: Mapping[str, Ranking]) -> Choice:
        """Choose widths of some groups that meet the target."""

    @abstractmethod
    def measure(self, report: Report) -> float | None:
        """What is compared with the value; None where a run has not measured it.

        Raises:
            UnjudgedError: it was measured, and cannot be trusted.
        """

    @abstractmethod
    def meaning(self, report: Report) -> str:
        """What the two numbers mean."""

    def format(self, value: float) -> str:
        """A value for people."""
        return f"{value:.4g}"


def target_kinds() -> dict[str, type[Target]]:
    """All kinds of targets by their names."""
    return plugins.discover(PACKAGE, Target)


def make_target(section: Mapping[str, float]) -> Target:
    """Return the target of a recipe's section, which holds exactly one."""
    (name, value), *_ = section.items()
    return plugins.find(PACKAGE, Target, name, where="compress.target")(value)


def make_cost_model(kind: str, model: nn.Module, groups: Groups) -> CostModel:
    """Return a cost model by its name."""
    from compressor.budget.costs.tensor_cost import ProductCost

    build: Any = plugins.find("compressor.budget.costs", ProductCost, kind, where="compress.target")
    cost: CostModel = build(model, groups)
    return cost
