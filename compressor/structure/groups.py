"""Channel groups: the dimensions of a network that must be cut together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Literal

from compressor.structure.flow import Flow

Role = Literal["producer", "consumer", "carrier"]


@dataclass(frozen=True)
class Slice:
    """One axis of one tensor, and the coordinates on it that belong to each unit of a group.

    Attributes:
        tensor: Name of the parameter or buffer, as in `state_dict()`.
        axis: The axis that is cut. For the input side of a grouped convolution it is 1, and coordinates count
            input channels over all convolution groups (0 .. in_channels - 1).
        role: What the tensor does with the channels: `producer` makes them, `consumer` mixes them linearly,
            `carrier` passes them one by one.
        coordinates: For every unit, the coordinates on the axis that it owns.
        conv_groups: Number of groups of a grouped convolution on its input side, else 1.
    """

    tensor: str
    axis: int
    role: Role
    coordinates: tuple[tuple[int, ...], ...]
    conv_groups: int = 1

    @property
    def layer(self) -> str:
        """Name of the module that owns the tensor."""
        return self.tensor.rpartition(".")[0]

    @cached_property
    def end(self) -> int:
        """The first coordinate beyond those of all units."""
        return 1 + max(chain.from_iterable(self.coordinates), default=-1)


@dataclass(frozen=True)
class ChannelGroup:
    """Dimensions that are cut together, as `size` units of which any subset may be kept.

    Attributes:
        name: The layer that produces the channels (the first one, in the order of the data).
        size: Number of units.
        slices: Every tensor axis that carries the units.
        blocks: Sets of units of which equally many must be kept (the groups of a grouped convolution);
            empty when the choice is free.
        vanishes: True where no unit at all need be kept: what reads them becomes a constant.
        inexact: True where a layer norm reads the channels: cutting some changes all the others, which only training
            makes up for.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> (group,) = compressor.find_groups(model, torch.zeros(1, 4))
        >>> group.name, group.size, group.producers, group.consumers
        ('0', 8, ('0',), ('2',))
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    blocks: tuple[tuple[int, ...], ...] = ()
    vanishes: bool = False
    inexact: bool = False

    def layers(self, role: Role) -> tuple[str, ...]:
        """Names of the layers with that role, without repetition, in the order of the data."""
        return tuple(dict.fromkeys(s.layer for s in self.slices if s.role == role))

    @property
    def producers(self) -> tuple[str, ...]:
        return self.layers("producer")

    @property
    def consumers(self) -> tuple[str, ...]:
        return self.layers("consumer")

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.layers("carrier")

    @property
    def step(self) -> int:
        """Kept widths must be multiples of this."""
        return max(1, len(self.blocks))

    @property
    def fewest(self) -> int:
        """The fewest units that can be kept."""
        return 0 if self.vanishes else self.step

    def balanced(self, order: Sequence[int]) -> tuple[int, ...]:
        """Reorder `order` so that every prefix of a multiple of `step` units takes equally many of each block."""
        if not self.blocks:
            return tuple(order)
        block_of = {unit: b for b, block in enumerate(self.blocks) for unit in block}
        ranked: list[list[int]] = [[] for _ in self.blocks]
        for unit in order:
            ranked[block_of[unit]].append(unit)
        return tuple(unit for row in zip(*ranked, strict=True) for unit in row)


@dataclass(frozen=True)
class Skipped:
    """Layers whose channels are left alone, and why."""

    layers: tuple[str, ...]
    reason: str

    def __iter__(self) -> Iterator[object]:
        return iter((self.layers, self.reason))


@dataclass(frozen=True)
class Groups(Sequence[ChannelGroup]):
    """The channel groups of a network in the order of the data.

    Attributes:
        items: The groups.
        skipped: What cannot be pruned, and why.
        positions: For every weight tensor, how often each of its elements is used for one input: the
            multiply-adds of its layer are `numel * positions`.
        norms: For every layer whose output goes straight into one batch norm, the name of that batch norm.
        repeated: Weights that are used more than once.
        flow: Which operation reads what which others make.
        shifts: For every weight whose output is only ever added to something, the parameters that are to be zero for
            that output to be zero where all inputs are: a bias, or scale and shift of the batch norm that follows.
    """

    items: tuple[ChannelGroup, ...]
    skipped: tuple[Skipped, ...] = ()
    positions: dict[str, int] = field(default_factory=dict)
    norms: dict[str, str] = field(default_factory=dict)
    repeated: frozenset[str] = frozenset()
    flow: Flow = field(default_factory=Flow)
    shifts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.items[index]

    def by_name(self) -> dict[str, ChannelGroup]:
        """The groups by their names."""
        return {group.name: group for group in self.items}

    def may_vanish(self, names: Collection[str]) -> bool:
        """True where these groups can all vanish together: each can, and no other layer is left with constants alone.

        Fewer groups may be too few: where a group of which nothing is kept cuts others off, they need not be kept.
        """
        gone = frozenset(names)
        if gone not in self._answers:
            items = [group for group in self.items if group.name in gone]
            self._answers[gone] = all(g.vanishes for g in items) and not self.starved(gone)
        return self._answers[gone]

    def starved(self, names: Collection[str]) -> str | None:
        """What would be left with constants alone if these groups vanished: the weight of a layer, or words."""
        read = {s.tensor for g in self.items if g.name in names for s in g.slices if s.role == "consumer"}
        return self.flow.starved(read)

    @cached_property
    def _answers(self) -> dict[frozenset[str], bool]:
        return {}
