"""What the search for a measured target found; reports hold it as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from compressor.budget.search.bracket import Attempt
from compressor.support.ranges import Count, Number


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The search for widths that meet a target on measured time.

    Attributes:
        target: The speed-up that was wanted.
        reached: Whether the last attempt holds it for certain.
        measured: Whether attempts were measured here, or predicted by the table of another device.
        attempts: All of them; the last one was taken.
        device: What the latency table belongs to; None where there is none.
        block: Channels that the device works on together.
        align: Widths that are no multiple of this are slower.
        error: The table predicted nine of ten networks that were held out better than by this share.
        multiple_of: What widths were multiples of.
        doubt: Why the latency table was not used to choose widths, where it was not.
        dense_ms: What the table says about the dense network.
        predicted_ms: And about the compact one.
        layers: Milliseconds of each layer of the compact network, by its node in the file.
        curves: Milliseconds of the dense network with one group at every width from 0 up, for some groups.
    """

    target: float
    reached: bool
    measured: bool
    attempts: Annotated[list[Attempt], Field(min_length=1)]
    device: dict[str, Any] | None = None
    block: Count | None = None
    align: Count | None = None
    error: float | None = None
    multiple_of: Number | None = None
    doubt: str | None = None
    dense_ms: float | None = None
    predicted_ms: float | None = None
    layers: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
