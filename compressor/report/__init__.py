"""What a run found, and the files that say so."""

from compressor.report.base import Samples, write_report
from compressor.report.schema import Inspection, Report

__all__ = ["Inspection", "Report", "Samples", "write_report"]
