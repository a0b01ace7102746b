"""Chains of 1x1 convolutions whose groups are written by hand, and price curves for them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from compressor.selection.base import Ranking
from compressor.structure.groups import ChannelGroup, Groups, Role, Slice


def single(tensor: str, axis: int, role: Role, size: int, conv_groups: int = 1) -> Slice:
    """A slice of which every unit owns one coordinate."""
    return Slice(tensor, axis, role, tuple((unit,) for unit in range(size)), conv_groups)


def chain(sizes: Sequence[int], positions: Sequence[int]) -> tuple[nn.Module, Groups]:
    """3 -> sizes[0] -> sizes[1] ... -> 5 channels; one group between each two layers."""
    layers = [nn.Conv2d(i, o, 1, bias=False) for i, o in zip([3, *sizes], [*sizes, 5], strict=True)]
    groups = tuple(
        ChannelGroup(
            str(i), size, (single(f"{i}.weight", 0, "producer", size), single(f"{i + 1}.weight", 1, "consumer", size))
        )
        for i, size in enumerate(sizes)
    )
    return nn.Sequential(*layers), Groups(groups, positions={f"{i}.weight": n for i, n in enumerate(positions)})


def curve(losses: Sequence[float]) -> Ranking:
    """A ranking whose error rises by `losses[k]` when unit k goes and those after it are gone."""
    error = [sum(losses[k:]) for k in range(len(losses))] + [0.0]
    return Ranking(tuple(range(len(losses))), tuple(error))
