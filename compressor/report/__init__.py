"""What a run found, and the files that say so."""

from compressor.report.schema import Inspection, Report
from compressor.report.writers.base import Samples, write_report

__all__ = ["Inspection", "Report", "Samples", "write_report"]
