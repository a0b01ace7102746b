"""report.html, for people: one file that opens offline."""

from __future__ import annotations

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from compressor.report.schema import Report
from compressor.report.writers import plots
from compressor.report.writers.base import Samples, Writer
from compressor.report.writers.tables import comparison, faster, rule_rows, training_line, verdict


class HtmlWriter(Writer):
    """Verdict first; style and plots are part of the file."""

    name = "report.html"

    def render(self, report: Report, samples: Samples) -> str:
        # Everything but our own plots is escaped: names of layers and files come from strangers.
        environment = Environment(
            loader=PackageLoader("compressor.report.writers", "."),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        benchmarks = report.benchmarks[: len(samples)]
        environment.filters["faster"] = faster
        return environment.get_template("report.html.j2").render(
            report=report,
            verdict=verdict(report),
            rules=rule_rows(report),
            variants=comparison(report),
            latencies=[(bench, Markup(plots.latency(raw))) for bench, raw in zip(benchmarks, samples, strict=True)],
            training=Markup(plots.training(report.history)) if report.history else None,
            judged=training_line(report.finetune, report.quality) if report.finetune else None,
            gates=_gates(report),
            staircases=_staircases(report),
            recipe=yaml.safe_dump(report.recipe, sort_keys=False),
        )


def _gates(report: Report) -> Markup | None:
    """The plot of learned gates; none where there were none."""
    moved = set.intersection(*({*m.expected} & {*m.thresholded} for m in report.gates)) if report.gates else ()
    sizes = {group.name: group.size for group in report.groups if group.size and group.name in moved}
    return Markup(plots.gates(report.gates, sizes)) if sizes else None


def _staircases(report: Report) -> Markup | None:
    """The plot of latency over width; none without a latency table."""
    if not report.speed or not report.speed.curves:
        return None
    kept = {group.name: group.kept for group in report.groups if group.kept is not None}
    return Markup(plots.staircases(report.speed.curves, kept))
