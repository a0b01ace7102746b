"""What a choice of widths costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Widths = Mapping[str, int]
Array = NDArray[np.float64]


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
