"""The plan: which units of every group are kept, by layer name, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lcm
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compressor.errors import InputError
from compressor.structure.groups import ChannelGroup, Groups, Role, Slice
from compressor.support.files import write_atomically

SCHEMA = 1
MOST = 1 << 22
"""No tensor has more coordinates on an axis; a file that says otherwise is refused before it fills the memory."""
Count = Annotated[int, Field(ge=0, le=MOST)]


class _Evenly(BaseModel):
    """Unit u owns `width` coordinates from `start + u * step` on."""

    model_config = ConfigDict(extra="forbid")
    start: Count
    step: int = Field(ge=1, le=MOST)
    width: int = Field(ge=1, le=MOST)


class _Slice(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tensor: str
    axis: Count
    role: Role
    coordinates: _Evenly | list[list[Count]]
    conv_groups: int = Field(1, ge=1, le=MOST)


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    size: int = Field(ge=1, le=MOST)
    kept: list[Count]
    vanishes: bool = False
    inexact: bool = False
    slices: list[_Slice]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    schema_: int = Field(alias="schema")
    groups: list[_Group]


@dataclass(frozen=True)
class PlannedGroup:
    """A group and the units of it that stay, in ascending order."""

    group: ChannelGroup
    kept: tuple[int, ...]

    @property
    def vanished(self) -> bool:
        """True where nothing is kept."""
        return not self.kept

    @cached_property
    def dropped(self) -> tuple[int, ...]:
        """The units that go, in ascending order."""
        kept = set(self.kept)
        return tuple(u for u in range(self.group.size) if u not in kept)


class Ranked(Protocol):
    """Units in the order of their worth, the best first."""

    @property
    def order(self) -> Sequence[int]:
        """The units."""


@dataclass(frozen=True)
class Plan:
    """The kept units of every group. Groups that are not in a plan stay whole.

    Attributes:
        groups: The groups with their kept units.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> groups = compressor.find_groups(model, torch.zeros(1, 4))
        >>> compressor.Plan.of(groups, {"0": [0, 3, 5]}).kept
        {'0': (0, 3, 5)}
        >>> plan = compressor.Plan.uniform(groups, keep=0.5)
        >>> plan.save("plan.json")
        >>> compressor.Plan.load("plan.json") == plan
        True
    """

    groups: tuple[PlannedGroup, ...]

    @property
    def kept(self) -> dict[str, tuple[int, ...]]:
        """The kept units by the group's name."""
        return {planned.group.name: planned.kept for planned in self.groups}

    @classmethod
    def of(cls, groups: Iterable[ChannelGroup], kept: Mapping[str, Sequence[int]]) -> Plan:
        """Keep the given units of the named groups; groups that are not named stay whole.

        Raises:
            InputError: A unit does not exist, none is kept, a grouped convolution would be left uneven, or groups of
                which nothing is kept leave another layer with constants alone.
        """
        planned = []
        for group in groups:
            units = tuple(sorted(set(kept.get(group.name, range(group.size)))))
            _check_units(group, units)
            planned.append(PlannedGroup(group, units))
        if isinstance(groups, Groups):
            _check_vanished(groups, [p.group.name for p in planned if p.vanished])
        return cls(tuple(planned))

    @classmethod
    def from_rankings(
        cls, groups: Iterable[ChannelGroup], rankings: Mapping[str, Ranked], widths: Mapping[str, int]
    ) -> Plan:
        """Keep the best units of every group.

        Args:
            groups: What `find_groups` returned, or some of it.
            rankings: The order of the units of every group, by its name.
            widths: How many of them stay, by the name of the group; groups without a width stay whole.

        Raises:
            InputError: as from `of`.
        """
        return cls.of(groups, {name: rankings[name].order[:width] for name, width in widths.items()})

    @classmethod
    def uniform(cls, groups: Iterable[ChannelGroup], keep: float, multiple_of: int = 1) -> Plan:
        """Keep the first units of every group, the same share of each.

        Args:
            groups: What `find_groups` returned.
            keep: Share of the units that stay, above 0 and at most 1.
            multiple_of: Round the kept numbers to the nearest multiple of this (and of what the group needs), but never
                to zero.
        """
        if not 0 < keep <= 1:
            raise InputError(f"keep must be above 0 and at most 1, but got {keep}", where="Plan.uniform")
        kept = {}
        for group in groups:
            step = lcm(group.step, multiple_of)
            width = min(group.size, max(step, int(group.size * keep / step + 0.5) * step))
            width = group.size if width % group.step else width
            kept[group.name] = group.balanced(range(group.size))[:width]
        return cls.of(groups, kept)

    def without(self, names: Iterable[str]) -> Plan:
        """The same plan with the named groups left whole."""
        gone = set(names)
        return Plan(tuple(p for p in self.groups if p.group.name not in gone))

    def to_json(self) -> str:
        """The plan as JSON text; `Plan.load` reads it back."""
        groups = [_dump_group(planned) for planned in self.groups]
        return json.dumps({"schema": SCHEMA, "groups": groups}, indent=1)

    def save(self, path: str | Path) -> None:
        """Write the plan to a JSON file, all or nothing."""
        write_atomically(Path(path), self.to_json().encode())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan.

        Raises:
            InputError: The file is missing or is not a plan.
        """
        cure = "take the plan.json of a finished run"
        try:
            read = _File.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", where=str(path), cure=cure) from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(f"is not a plan: {place}: {first['msg']}", where=str(path), cure=cure) from error
        if read.schema_ != SCHEMA:
            raise InputError(f"has schema {read.schema_}, this version reads {SCHEMA}", where=str(path), cure=cure)
        groups = [(_load_group(g, str(path)), g.kept) for g in read.groups]
        return cls.of([g for g, _ in groups], {g.name: kept for g, kept in groups})


def _check_units(group: ChannelGroup, units: tuple[int, ...]) -> None:
    where = f"group {group.name}"
    if not units and not group.vanishes:
        raise InputError("a plan must keep at least one unit of this group", where=where)
    if units and (units[0] < 0 or units[-1] >= group.size):
        raise InputError(f"unit {units[-1]} does not exist, the group has {group.size}", where=where)
    counts = {len(set(block) & set(units)) for block in group.blocks}
    if len(counts) > 1:
        raise InputError("a grouped convolution needs equally many units of each of its groups", where=where)


def _check_vanished(groups: Groups, gone: Sequence[str]) -> None:
    starved = groups.starved(gone)
    if starved is not None:
        problem = f"the groups of which nothing is kept leave {starved} with constants alone"
        raise InputError(problem, where=f"groups {', '.join(gone)}", cure="keep a unit of one of them")


def _dump_group(planned: PlannedGroup) -> dict[str, Any]:
    group = planned.group
    slices = [
        {
            "tensor": s.tensor,
            "axis": s.axis,
            "role": s.role,
            "coordinates": _dump_coordinates(s.coordinates),
            "conv_groups": s.conv_groups,
        }
        for s in group.slices
    ]
    kept = list(planned.kept)
    flags = {"vanishes": group.vanishes} | ({"inexact": True} if group.inexact else {})
    return {"name": group.name, "size": group.size, "kept": kept} | flags | {"slices": slices}


def _dump_coordinates(coordinates: tuple[tuple[int, ...], ...]) -> Any:
    start, width = coordinates[0][0], len(coordinates[0])
    step = coordinates[1][0] - start if len(coordinates) > 1 else width
    if step >= 1 and coordinates == _evenly(start, step, width, len(coordinates)):
        return {"start": start, "step": step, "width": width}
    return [list(c) for c in coordinates]


def _evenly(start: int, step: int, width: int, size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(range(start + u * step, start + u * step + width)) for u in range(size))


def _load_group(group: _Group, where: str) -> ChannelGroup:
    slices = []
    for s in group.slices:
        c = s.coordinates
        if isinstance(c, _Evenly) and group.size * c.width > MOST:
            raise InputError(f"{s.tensor} has more than {MOST} coordinates", where=where)
        units = _evenly(c.start, c.step, c.width, group.size) if isinstance(c, _Evenly) else tuple(tuple(u) for u in c)
        if len(units) != group.size:
            raise InputError(f"{s.tensor} has {len(units)} units, its group {group.size}", where=where)
        slices.append(Slice(s.tensor, s.axis, s.role, units, s.conv_groups))
    return ChannelGroup(group.name, group.size, tuple(slices), vanishes=group.vanishes, inexact=group.inexact)
