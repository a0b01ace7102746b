"""Which channels must be kept or cut together: edges between coordinates of weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compressor.structure.flow import Flow
from compressor.structure.tracing.ops import Lane, Port, WeightCall

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass
class Couplings:
    """Edges between coordinates of ports, and what is known about them besides.

    Attributes:
        calls: The operations with weights, in the order of the data.
        norms: The batch norm that follows a layer.
        summed: Weights whose outputs are only ever added to something.
        ports: Every port that was seen, with the number of its first coordinate.
        pairs: Pairs of coordinates that must be kept or cut together.
        fixed: Coordinates that must stay, with the reason.
        flow: Which calls read what which others make; None where there was no time to find out.
        auxiliary: True where parts run in training only, and were looked at, too.
        mixed: Ports whose channels cannot be told apart, with the reason.
    """

    calls: list[WeightCall] = field(default_factory=list)
    norms: dict[str, str] = field(default_factory=dict)
    summed: set[str] = field(default_factory=set)
    ports: dict[Port, int] = field(default_factory=dict)
    pairs: list[tuple[Ints, Ints]] = field(default_factory=list)
    fixed: list[tuple[Ints, str]] = field(default_factory=list)
    mixed: dict[Port, str] = field(default_factory=dict)
    flow: Flow | None = None
    total: int = 0
    auxiliary: bool = False

    def places(self, lane: Lane) -> Ints:
        """The numbers of the channels of a lane among all coordinates."""
        if lane.port not in self.ports:
            self.ports[lane.port] = self.total
            self.total += lane.port.size
        return np.asarray(lane.coordinates, dtype=np.int64) + self.ports[lane.port]

    def join(self, left: Ints, right: Ints) -> None:
        """Couple two arrays of coordinates element by element."""
        self.pairs.append((left, right))
