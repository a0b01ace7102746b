"""A writer turns a report into one file; there is one module of this package per writer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from compressor.report.schema import Report
from compressor.support import plugins
from compressor.support.files import write_atomically

Samples = Sequence[Mapping[str, Sequence[float]]]
"""Raw latencies in milliseconds: for every benchmark of a report, by model."""


class Writer(ABC):
    """Renders a report. `name` is the file that it fills."""

    name: ClassVar[str]

    @abstractmethod
    def render(self, report: Report, samples: Samples) -> str:
        """Return the text of the file."""


def write_report(report: Report, run_dir: Path, samples: Samples = ()) -> None:
    """Write every file of the report into `run_dir`, each at once; nothing is written unless all can be rendered."""
    writers = plugins.discover("compressor.report.writers", Writer)
    texts = {name: writer().render(report, samples) for name, writer in writers.items()}
    for name, text in texts.items():
        write_atomically(run_dir / name, text.encode())
