"""How the command prints tables and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporters import Benchmark


import json
import sys
from collections.abc import Sequence
from typing import Any

import typer

LOG_WIDTH = 160
"""Characters in a line of a table that no terminal folds."""


def plain(value: Any) -> str:
    """A default as a recipe writes it."""
    return value if isinstance(value, str) else "found" if value is None else json.dumps(value)


def print_json(value: object) -> None:
    """Print a value to standard output, as a program reads it."""
    typer.echo(json.dumps(value, indent=2))


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(table)


def print_benchmarks(results: Sequence[Benchmark]) -> None:
    """One row per setting and file, each with its speed-up over the first file."""
    rows = []
    for result in results:
        for name, latency in result.models.items():
            ratio = result.speedups.get(name)
            compared = f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})" if ratio else "reference"
            milliseconds = (f"{value:.3f}" for value in (latency.p50_ms, latency.p90_ms, latency.p99_ms))
            memory = "-" if latency.peak_bytes is None else f"{latency.peak_bytes / 1e6:.0f}"
            numbers = (f"{latency.throughput:.0f}", f"{latency.session_ms:.1f}", memory, str(latency.samples))
            rows.append((str(result.threads), str(result.batch), name, *milliseconds, *numbers, compared))
    head = ("Threads", "Batch", "File", "p50 ms", "p90 ms", "p99 ms", "Inputs/s", "Open ms", "Peak MB", "Samples")
    print_table((*head, "Speed-up (95 %)"), rows)
    for warning in dict.fromkeys(warning for result in results for warning in result.warnings):
        typer.echo(f"warning: {warning}", err=True)
