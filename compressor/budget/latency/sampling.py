"""Which widths of a network are measured to learn what its operators cost at all widths."""

from __future__ import annotations

from random import Random

from compressor.structure.groups import ChannelGroup, Groups

NETWORKS = 144
"""Most networks that are measured."""
SPREAD = 0.4
"""How far the share of a group that is kept lies from that of its network, at most."""
LEAST_SHARE = 0.25
"""The smallest share of all groups that a network keeps."""
UNITS = (4, 8)
"""Widths of most networks are multiples of one of these: plans have such widths."""
ODD_EVERY = 4
"""Every so many networks have any widths at all, for the steps of the staircase and what leaves the fast path."""


def choose_widths(groups: Groups, number: int = NETWORKS, seed: int = 0) -> list[dict[str, int]]:
    """Choices of widths: nothing cut; then networks of all sizes in which every group has a width of its own.

    The first ones of a longer list are those of a shorter one.
    """
    rng, choices = Random(seed), list[dict[str, int]]([{}])
    while len(choices) < number:
        level, odd = rng.uniform(LEAST_SHARE, 1.0), is_odd(len(choices))
        unit = 1 if odd else rng.choice(UNITS)
        choices.append({g.name: _width(g, level + rng.uniform(-SPREAD, SPREAD), unit) for g in groups})
    return choices


def is_odd(number: int) -> bool:
    """Whether the network of that number in the list has widths that are no multiples of anything."""
    return number % ODD_EVERY == ODD_EVERY - 1


def _width(group: ChannelGroup, share: float, unit: int) -> int:
    """The width next to a share of the group: a multiple of its step and, where it is large enough, of the unit."""
    step = group.step
    while step % unit and step * 2 <= group.size // 2:
        step *= 2
    wanted = round(min(1.0, max(0.0, share)) * group.size / step) * step
    return min(group.size, max(step, wanted))
