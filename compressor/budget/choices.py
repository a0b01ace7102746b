"""Which widths of a network are measured to learn what its operators cost at all widths."""

from __future__ import annotations

from collections import defaultdict
from random import Random

from compressor.structure.groups import ChannelGroup, Groups

FINE = 32
"""Numbers around the half of the largest groups that are all measured, for the steps of the staircase."""
ALIKE, FEWEST = 80, 4
"""Networks in which all groups of a size are cut alike, and at least so many of them per size."""
MIXED = 100
"""Networks in which every group has a width of its own, in every second of them any, else one of the even ones."""
EVEN = 32
"""Number of the even widths of a group."""


def choose_widths(groups: Groups, seed: int = 0) -> list[dict[str, int]]:
    """Choices of widths: nothing cut; all groups of a size cut alike, to ever more; every group cut differently."""
    rng, alike = Random(seed), defaultdict[tuple[int, int], list[ChannelGroup]](list)
    for group in groups:
        alike[group.size, group.step].append(group)
    choices: list[dict[str, int]] = [{}]
    largest = max((size for size, _ in alike), default=0)
    for (size, _), same in sorted(alike.items()):
        fine = set(range(size // 2 - FINE // 2, size // 2 + FINE // 2 + 1)) if size == largest > FINE else set()
        even = even_widths(same[0], max(FEWEST, ALIKE // len(alike)))
        widths = sorted(w for w in fine | set(even) if 0 < w < size and w % same[0].step == 0)
        choices += [{group.name: width for group in same} for width in widths]
    for number in range(MIXED):
        anything = number % 2 == 1
        choices.append(
            {
                g.name: rng.choice(range(g.step, g.size + 1, g.step) if anything else [*even_widths(g, EVEN), g.size])
                for g in groups
            }
        )
    return choices


def even_widths(group: ChannelGroup, number: int) -> list[int]:
    """About so many widths of a group below the full one, evenly spread."""
    every = max(1, group.size // number)
    return [w for w in range(group.step, group.size, group.step) if w % every == 0]
