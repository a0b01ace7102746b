"""Reports and inspections on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compressor.report.schema import Inspection, Reach, Report
from compressor.report.writers.tables import comparison, rule_rows, training_line, verdict
from compressor.support.units import count, percent

SHOWN, NAME = 2, 32
"""How many further layers of a group the terminal names (`--json` names all), and the width kept for its own name."""


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the verdict, the rules, before and after, and the warnings; to stdout unless told otherwise."""
    console = console or Console()
    variants = comparison(report)
    rules = [(r.name, r.required, r.measured, "holds" if r.passed else "FAILS") for r in rule_rows(report)]
    console.print(_table(variants.head, variants.rows))
    console.print(_table(("Rule", "Required", "Measured", ""), rules))
    if report.finetune:
        console.print(Text(training_line(report.finetune, report.quality)))
    for warning in report.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    console.print(Text(verdict(report), style="bold green" if report.accepted else "bold red"))


def print_inspection(inspection: Inspection, console: Console | None = None) -> None:
    """Print what can be cut, what cannot and why; to stdout unless told otherwise."""
    console = console or Console()
    console.print(Text(f"{count(inspection.params)} parameters, {count(inspection.macs)} multiply-adds per input"))
    head = ["Channel group", "Units", "Step", "Parameters in reach", "Multiply-adds in reach"]
    groups = [
        [_labelled(group), str(group.size), str(group.step), percent(group.params), percent(group.macs)]
        for group in inspection.groups
    ]
    if any(group.ms is not None for group in inspection.groups):
        head += ["Milliseconds in reach", "Per unit", "Faster widths"]
        for row, group in zip(groups, inspection.groups, strict=True):
            ms = group.ms or 0.0
            row += [f"{ms:.3g}", f"{ms / group.size:.2g}", ", ".join(map(str, group.useful)) or "none"]
    head.append("Also cut in")
    for row, group in zip(groups, inspection.groups, strict=True):
        row.append(_shortened([name for name in group.layers if name != group.name]))
    console.print(_table(head, groups, least=min(NAME, max((len(row[0]) for row in groups), default=0))))
    if inspection.layers_ms:
        total = sum(inspection.layers_ms.values())
        layers = [(name, f"{ms:.3g}", percent(ms / total)) for name, ms in inspection.layers_ms.items()]
        console.print(_table(("Layer, with what follows it", "Milliseconds", "Share"), layers))
    if inspection.untouched:
        rows = [(", ".join(group.layers), group.reason or "") for group in inspection.untouched]
        console.print(_table(("Left alone", "Reason"), rows))
    reachable = ", ".join(f"{kind}: {ceil(1000 * value) / 1000:.3f}" for kind, value in inspection.smallest.items())
    console.print(Text(f"Smallest reachable targets: {reachable}"))
    if inspection.fastest is not None:
        console.print(Text(f"Largest predicted speed-up: {inspection.fastest:.2f}"))


def _labelled(group: Reach) -> str:
    return f"{group.name} (inexact)" if group.inexact else group.name


def _shortened(layers: Sequence[str]) -> str:
    more = len(layers) - SHOWN
    return ", ".join(layers[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], least: int | None = None) -> Table:
    """A table of which the first column is at least so wide."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for number, title in enumerate(head):
        table.add_column(title, overflow="fold", min_width=None if number else least)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
