"""summary.md, for job summaries and merge requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from compressor.report.schema import Report
from compressor.report.writers.base import Samples, Writer
from compressor.report.writers.tables import comparison, rule_rows, training_line, verdict


class MarkdownWriter(Writer):
    """The verdict, the rules, before and after, and the warnings."""

    name = "summary.md"

    def render(self, report: Report, samples: Samples) -> str:
        rules = [(r.name, r.required, r.measured, "yes" if r.passed else "**no**", r.text) for r in rule_rows(report)]
        variants, cut = comparison(report), sum(group.kept != group.size for group in report.pruned_groups)
        parts = [
            "# Compression report",
            f"**{_escape(verdict(report))}**",
            _table(("Rule", "Required", "Measured", "Holds", "Meaning"), rules),
            _table(variants.head, variants.rows),
            f"{cut} of {len(report.pruned_groups)} channel groups cut; {len(report.untouched_groups)} left alone.",
        ]
        if report.finetune:
            parts.append(_escape(training_line(report.finetune, report.quality)))
        if report.warnings:
            parts += ["## Warnings", "\n".join(f"- {_escape(warning)}" for warning in report.warnings)]
        return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
