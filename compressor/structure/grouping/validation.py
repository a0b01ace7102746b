"""A trial of every group before anybody relies on it: cut it in several ways, and compare with the masked network."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.structure.groups import ChannelGroup, Groups
from compressor.structure.plan import Plan
from compressor.structure.proof import TOLERANCE, cast, difference, precise_copy
from compressor.structure.surgery.mask import masked
from compressor.structure.surgery.shrink import is_whole, preview, shrink
from compressor.structure.surgery.zero_width import can_vanish
from compressor.structure.tensors import duplicate
from compressor.structure.tracing.auxiliary import containers_training
from compressor.support.allocator import trim
from compressor.support.modules import evaluating, remembering

LARGE = 50_000_000
"""Parameters of a network for which memory counts: it is tried in single precision, with its own large weights."""

PARTS = 6
"""Into how many parts groups are divided where some of them fail: two would do for a few, where many fail more do."""

DRAFTS = 2
"""In how many of the ways groups are cut while those that fail are looked for: hardly any fails in the others only."""


def failing_groups(
    model: nn.Module, groups: Sequence[ChannelGroup], inputs: tuple[Any, ...], *, auxiliary: bool = False
) -> dict[str, str]:
    """Names of the groups for which the shrunk network is not the masked one, with the reason.

    Groups are accepted one part after the other, each on top of those that are accepted already, so that what is left
    can be cut together. Parts are made of families: layers whose names differ in numbers only; a family of which the
    first and the last fail is given up as a whole. Weights are shaken first, so that equal or zero weights cannot hide
    a wrong index.

    Args:
        model: The network; it is left as it was.
        groups: The groups to try.
        inputs: What `model(*inputs)` takes.
        auxiliary: The network has layers that run in training only; they must run too.

    Raises:
        InputError: The outputs differ from run to run, or a copy does not run by itself, so nothing can be proved.
    """
    return _try(model, groups, inputs, _TRIALS, auxiliary)


def _try(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    inputs: tuple[Any, ...],
    choices: Sequence[Choice],
    auxiliary: bool,
) -> dict[str, str]:
    if not groups:
        return {}
    if sum(p.numel() for p in model.parameters()) > LARGE:
        dtype, exact = torch.float32, cast(inputs, torch.float32)
        shared = [p for p in model.parameters() if p.dtype == dtype and _is_varied(p)]
        copy = duplicate(model, dict(zip(shared, shared, strict=True))).to(dtype)
    else:
        copy, exact, dtype = precise_copy(model, inputs)
        shared = []
    _shake(copy, shared)
    families: dict[Any, list[ChannelGroup]] = defaultdict(list)
    for group in groups:
        families[_family(group)].append(group)
    with evaluating(copy):
        return _Trial(copy, exact, TOLERANCE[dtype], choices, auxiliary).failing(list(families.values()))


def vanishing_groups(model: nn.Module, groups: Groups, inputs: tuple[Any, ...]) -> set[str]:
    """Names of the groups of which nothing need be kept: no other layer reads constants alone, and a trial is right."""
    tensors = dict(model.named_parameters())
    able = [replace(g, vanishes=True) for g in groups if _could_vanish(model, g, tensors)]
    able = [g for g in able if groups.starved((g.name,)) is None]
    choices = [partial(_none_of, gone) for gone in _sets(replace(groups, items=tuple(able)))]
    return {g.name for g in able} - set(_try(model, able, inputs, choices, False))


def _sets(groups: Groups) -> list[set[str]]:
    """Every group in one of several sets that may vanish together: two, as long as that is enough.

    So that each is tried without the other groups, and with them, and the network is not constant throughout.
    """
    sets: list[set[str]] = [set(), set()]
    for number, group in enumerate(groups):
        fitting = [own for own in (*sets[number % 2 :], *sets[: number % 2]) if groups.may_vanish({*own, group.name})]
        if not fitting:
            fitting.append(set())
            sets.append(fitting[0])
        fitting[0].add(group.name)
    return sets


def _could_vanish(model: nn.Module, group: ChannelGroup, tensors: Mapping[str, Tensor]) -> bool:
    if group.blocks or group.inexact:
        return False
    read = [s for s in group.slices if s.role == "consumer"]
    return all(
        s.tensor == f"{s.layer}.weight"
        and can_vanish(model.get_submodule(s.layer))
        and s.axis == 1
        and s.conv_groups == 1
        and is_whole(s, tensors[s.tensor])
        for s in read
    )


def faulty_groups(model: nn.Module, plan: Plan, inputs: tuple[Any, ...]) -> dict[str, str]:
    """Names of the groups for which a plan is wrong, with the reason, found by bisection in double precision."""
    exact, inputs, dtype = precise_copy(model, inputs)
    kept = plan.kept
    with evaluating(exact):
        trial = _Trial(exact, inputs, TOLERANCE[dtype], (lambda group, number: kept[group.name],))
        return trial.failing([[p.group] for p in plan.groups if p.dropped])


def _family(group: ChannelGroup) -> Any:
    layers = sorted({re.sub(r"\d+", "", s.layer) for s in group.slices})
    return tuple(layers), len(group.slices[0].coordinates[0]) > 1


def _is_varied(weight: Tensor) -> bool:
    return weight.dim() > 1 and bool(weight.min() < weight.max())


def _shake(model: nn.Module, shared: Sequence[Tensor]) -> None:
    """Add a little noise to every tensor but those that are shared with another network."""
    generator, same = torch.Generator().manual_seed(0), {id(tensor) for tensor in shared}
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and tensor.numel() and id(tensor) not in same:
                scale = 0.1 * tensor.abs().mean().clamp_min(0.01)
                noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.add_(noise.to(tensor.device) * scale)


class _Trial:
    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Any, ...],
        tolerance: float,
        choices: Sequence[Choice],
        auxiliary: bool = False,
    ) -> None:
        self.model, self.inputs, self.tolerance = model, inputs, tolerance
        self.choices, self.auxiliary = choices, auxiliary
        self._numbers: dict[str, int] = {}
        self._chosen: dict[tuple[Choice, str], tuple[int, ...]] = {}
        self._known: dict[tuple[Choice, frozenset[str]], str | None] = {}

    def failing(self, families: list[list[ChannelGroup]]) -> dict[str, str]:
        """Names of the groups to leave alone, with the reason; the others can be cut together.

        Where not all can, a draft tries them in fewer ways, on networks that are not copied as a whole; what it leaves
        must then pass in every way, together, or the search is done again in every way.
        """
        groups = [g for family in families for g in family]
        self._numbers = {g.name: number for number, g in enumerate(groups)}
        bad: dict[str, str] = {}
        if not groups or self._fault(groups) is None:
            return bad
        good = self._accept([], families, bad, self._draft_fault)
        if good and self._fault(good) is not None:
            bad.clear()
            good = self._accept([], families, bad, self._fault)
        if not good:
            self._check_repeatable()
        return bad

    def _check_repeatable(self) -> None:
        """Where no group passes, that may be because the network computes something else in every run."""
        with remembering(self.model):
            first = self.model(*self.inputs)
        if difference(first, self.model(*self.inputs)) > self.tolerance:
            raise InputError(
                "the network computes something else from run to run",
                cure="make forward() deterministic in evaluation mode",
            )

    def _accept(
        self, good: list[ChannelGroup], families: list[list[ChannelGroup]], bad: dict[str, str], fault: Fault
    ) -> list[ChannelGroup]:
        """Those of the groups that can be cut together with the good ones, and these; the rest goes to `bad`."""
        groups = [g for family in families for g in family]
        reason = fault(good + groups) if groups else None
        if reason is None:
            return good + groups
        if len(groups) == 1:
            bad[groups[0].name] = reason
            return good
        if len(families) == 1:
            if len(groups) > 2 and all(fault([*good, g]) is not None for g in (groups[0], groups[-1])):
                bad |= dict.fromkeys((g.name for g in groups), reason)
                return good
            families = [[g] for g in groups]
        size = -(-len(families) // PARTS)
        for start in range(0, len(families), size):
            good = self._accept(good, families[start : start + size], bad, fault)
        return good

    def _fault(self, groups: list[ChannelGroup]) -> str | None:
        """What is wrong when all these groups are cut, or None."""
        return next(filter(None, (self._compare(groups, choice) for choice in self.choices)), None)

    def _draft_fault(self, groups: list[ChannelGroup]) -> str | None:
        """What is wrong in the first ways of cutting, or None; the same cut is not tried twice."""
        for choice in self.choices[:DRAFTS]:
            cut = frozenset(g.name for g in groups if len(self._kept(choice, g)) < g.size)
            if (choice, cut) not in self._known:
                self._known[choice, cut] = self._compare(groups, choice, draft=True)
            if (reason := self._known[choice, cut]) is not None:
                return reason
        return None

    def _kept(self, choice: Choice, group: ChannelGroup) -> tuple[int, ...]:
        key = choice, group.name
        if key not in self._chosen:
            self._chosen[key] = choice(group, self._numbers[group.name])
        return self._chosen[key]

    def _compare(self, groups: list[ChannelGroup], choice: Choice, *, draft: bool = False) -> str | None:
        plan = Plan.of(groups, {g.name: self._kept(choice, g) for g in groups})
        try:
            actual = self._run_shrunk(plan, self.auxiliary or choice is _first, draft)
        except Exception as error:
            problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return f"the network's code relies on its width: {problem}"
        finally:
            trim()
        with masked(self.model, plan), remembering(self.model):
            wrong = difference(self.model(*self.inputs), actual)
        if wrong <= self.tolerance:
            return None
        return f"the shrunk network would differ from the masked one by {wrong:.0e} (relative)"

    def _run_shrunk(self, plan: Plan, training: bool, draft: bool) -> Any:
        """The outputs of the shrunk network, which must run in training, too, if asked for and the dense one does."""
        small = (preview if draft and not training else shrink)(self.model, plan)  # training may change weights
        outputs = small(*self.inputs)
        if training:
            try:
                with containers_training(small):
                    small(*self.inputs)
            except Exception:
                if self._trains():
                    raise
        return outputs

    def _trains(self) -> bool:
        spare = duplicate(self.model)
        try:
            with containers_training(spare):
                spare(*self.inputs)
        except Exception:
            return False
        return True


Choice = Callable[[ChannelGroup, int], tuple[int, ...]]
Fault = Callable[[list[ChannelGroup]], str | None]


def _some(group: ChannelGroup, number: int) -> tuple[int, ...]:
    """Between a third and two thirds of the units at random, another share for every group; every third stays whole."""
    if number % 3 == 2:
        return tuple(range(group.size))
    generator = torch.Generator().manual_seed(number)
    order = torch.randperm(group.size, generator=generator).tolist()
    share = (0.5, 0.35, 0.65, 0.42, 0.58)[number % 5]
    return group.balanced(order)[: _multiple(group, share)]


def _first(group: ChannelGroup, number: int) -> tuple[int, ...]:
    return group.balanced(range(group.size))[: _multiple(group, 0.5)]


def _last(group: ChannelGroup, number: int) -> tuple[int, ...]:
    return group.balanced(range(group.size))[-group.step :]


def _all_but_first(group: ChannelGroup, number: int) -> tuple[int, ...]:
    return group.balanced(range(group.size))[group.step :]


def _none_of(gone: Collection[str], group: ChannelGroup, number: int) -> tuple[int, ...]:
    return () if group.name in gone else tuple(range(group.size))


_TRIALS: tuple[Choice, ...] = (_some, _all_but_first, _last, _first)


def _multiple(group: ChannelGroup, share: float) -> int:
    return max(1, round(group.size * share / group.step)) * group.step
