"""What learned gates tell of their training; reports hold it as it is."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.support.ranges import Count


@dataclass(frozen=True)
class GateEpoch:
    """How wide every group was at the end of an epoch.

    Attributes:
        epoch: Its number, from 1.
        expected: Expected number of open units, by the name of the group.
        thresholded: Number of units whose gate is open without chance.
    """

    epoch: Count
    expected: dict[str, float]
    thresholded: dict[str, Count]
