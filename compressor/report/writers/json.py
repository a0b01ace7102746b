"""report.json, for programs."""

from __future__ import annotations

from compressor.report.schema import Report
from compressor.report.writers.base import Samples, Writer


class JsonWriter(Writer):
    """The whole report, as its schema says."""

    name = "report.json"

    def render(self, report: Report, samples: Samples) -> str:
        return report.to_json() + "\n"
