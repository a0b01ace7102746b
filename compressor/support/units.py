"""Numbers for people, with their units."""

from __future__ import annotations


def count(value: float) -> str:
    """Format a number with an SI prefix: `11.2 M`."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}" if value < 1000 * size else f"{value / size:,.0f}{unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Format a number of bytes: `44.7 MB`."""
    return f"{count(value)}{'' if value >= 1e3 else ' '}B"


def percent(value: float) -> str:
    """Format a share: `87.6 %`."""
    return f"{100 * value:.4g} %"


def points(value: float) -> str:
    """Format a difference of shares, with its sign: `+0.31 points`."""
    return f"{100 * value:+.2f} points"


def milliseconds(value: float) -> str:
    """Format a latency: `1.84 ms`."""
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def times(value: float) -> str:
    """Format a factor: `1.84x`."""
    return f"{value:.2f}x"


def lost(value: float) -> str:
    """Format a drop of a share: `1.25 points`."""
    return f"{100 * value:.2f} points"


def megabytes(value: float) -> str:
    """Format a number of megabytes in the unit that fits: `590 kB`."""
    return size(1e6 * value)
