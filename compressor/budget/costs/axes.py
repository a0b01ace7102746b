"""How long the axes of a network's tensors are at any choice of widths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from compressor.budget.costs.base import Widths
from compressor.structure.groups import Groups
from compressor.support.modules import named_tensors


@dataclass(frozen=True)
class Axis:
    """The length of an axis: `scale * (free + sum over groups of owned * width)`.

    Attributes:
        free: Coordinates that no group owns.
        owned: By the name of a group, how many coordinates each of its units owns.
        sizes: By the name of a group, its width where nothing is cut.
        scale: Elements per coordinate; less than 1 on the input side of a grouped convolution.
    """

    free: float
    owned: tuple[tuple[str, float], ...]
    sizes: tuple[int, ...]
    scale: float = 1.0

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Axis:
        """Make one of what `dataclasses.asdict` gave, after it was JSON."""
        owned = tuple((str(name), float(own)) for name, own in content["owned"])
        return cls(content["free"], owned, tuple(content["sizes"]), content["scale"])

    def length(self, widths: Widths) -> float:
        """The length at these widths; a group that is not named keeps all its units."""
        kept = (own * widths.get(name, size) for (name, own), size in zip(self.owned, self.sizes, strict=True))
        return self.scale * (self.free + sum(kept))

    def slope(self, group: str) -> float:
        """By how much the length rises with every unit of a group."""
        return self.scale * dict(self.owned).get(group, 0.0)

    def times(self, factor: float) -> Axis:
        """An axis that is always so many times as long."""
        return Axis(self.free, self.owned, self.sizes, self.scale * factor)


def find_axes(model: nn.Module, groups: Groups) -> dict[tuple[str, int], Axis]:
    """Every axis of a parameter or buffer that some group can cut, by the tensor's name and the axis' number."""
    tensors = named_tensors(model)
    owners: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    blocks: dict[tuple[str, int], int] = {}
    sizes = {group.name: group.size for group in groups}
    for group in groups:
        for part in group.slices:
            at = part.tensor, part.axis
            owners[at][group.name] = owners[at].get(group.name, 0) + sum(map(len, part.coordinates)) / group.size
            blocks[at] = part.conv_groups
    axes = {}
    for (name, axis), owned in owners.items():
        length = tensors[name].shape[axis] * blocks[name, axis]
        free = length - sum(own * sizes[group] for group, own in owned.items())
        ordered = tuple(sorted(owned.items()))
        axes[name, axis] = Axis(free, ordered, tuple(sizes[g] for g, _ in ordered), 1 / blocks[name, axis])
    return axes
