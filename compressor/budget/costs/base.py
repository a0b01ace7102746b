"""What a choice of widths costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Widths = Mapping[str, int]
Array = NDArray[np.float64]

NEIGHBOURHOOD = 8
"""Expected costs are those of multiples of so many units: devices compute channels in blocks."""


class CostModel(ABC):
    """The cost of a network as a function of its widths. One file of this package per model.

    Widths are kept units by the name of the group; a group that is not named keeps all its units.
    """

    name: ClassVar[str]

    @property
    def dense(self) -> float:
        """Cost of the whole network, nothing cut."""
        return self.total({})

    @abstractmethod
    def total(self, widths: Widths) -> float:
        """Cost of the whole network at these widths."""

    def changes(self, widths: Widths, group: str, candidates: Sequence[int] | NDArray[np.int64]) -> Array:
        """By how much the cost rises when `group` alone takes each of the `candidates` as its width.

        A model overrides this where it can do so without adding up the whole network again.
        """
        now = self.total(widths)
        return np.array([self.total({**widths, group: int(width)}) - now for width in candidates])

    def change(self, widths: Widths, group: str, new_width: int) -> float:
        """By how much the cost rises when `group` alone takes `new_width`."""
        return float(self.changes(widths, group, (new_width,))[0])

    def expected(
        self, widths: Mapping[str, Tensor], variances: Mapping[str, Tensor], sizes: Mapping[str, int]
    ) -> Tensor:
        """Expected cost where the width of each named group is random, differentiable with respect to its mean.

        The cost at the nearest multiples of `NEIGHBOURHOOD`, and from there a straight line for every group, as steep
        as the cost is between the multiples below and above: on a plateau of a staircase, the way to its next step
        counts as well, and widths that leave a device's fast path, which no plan would choose, do not count. A model
        overrides this where it knows better.

        Args:
            widths: The mean width of every named group, 0 to its size, scalars.
            variances: The variances of the same widths, scalars.
            sizes: Units of the same groups.

        Returns:
            A scalar on the device of the widths.
        """
        whole = {name: _nearest(float(width.detach()), sizes[name]) for name, width in widths.items()}
        cost = next(iter(widths.values())).new_tensor(self.total(whole))
        for name, width in widths.items():
            low, high = _around(whole[name], sizes[name])
            less, more = self.changes(whole, name, (low, high))
            cost = cost + (width - whole[name]) * float((more - less) / (high - low))
        return cost


def _nearest(width: float, size: int) -> int:
    """The multiple of `NEIGHBOURHOOD`, or the full size, that is closest to a width."""
    return min({round(width / NEIGHBOURHOOD) * NEIGHBOURHOOD, size}, key=lambda w: (w > size, abs(w - width)))


def _around(whole: int, size: int) -> tuple[int, int]:
    """The multiples of `NEIGHBOURHOOD` below and above, within the size."""
    return max(0, (whole - 1) // NEIGHBOURHOOD * NEIGHBOURHOOD), min(size, whole + NEIGHBOURHOOD)
