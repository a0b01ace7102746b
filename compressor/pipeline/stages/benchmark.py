"""All files of the run, measured side by side."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime

from compressor.budget.latency.build import settings_of
from compressor.budget.search.speedup import CANDIDATE_SECONDS
from compressor.pipeline.context import RunContext
from compressor.pipeline.stages.base import Stage
from compressor.pipeline.stages.compact import CompactStage
from compressor.pipeline.stages.export_compact import ExportCompact
from compressor.pipeline.stages.export_dense import ExportDense
from compressor.pipeline.variants import variants
from compressor.report.measured import benchmark_of, speedup_of
from compressor.report.schema import BatchChoice
from compressor.report.schema import Benchmark as Measured
from compressor.support.files import read_facts, read_json, write_facts
from exporters.benchmark import benchmark

BENCHMARKS, BATCH = "benchmarks.json", "batch.json"


class MeasureFiles(Stage):
    """Measures all files at every batch size.

    Args:
        context: What all stages share.
        dense, exported: Write the files.
        compact: Leaves the network that the second file is of.
    """

    name = "benchmark"

    def __init__(self, context: RunContext, dense: ExportDense, compact: CompactStage, exported: ExportCompact) -> None:
        super().__init__(context)
        self.dense, self.compact, self.exported = dense, compact, exported

    @property
    def _single_calls(self) -> bool:
        return self.context.recipe.accept.p99_ms is not None

    def depends_on(self) -> Mapping[str, Any]:
        # A file's metadata does not change its latency: the weights count, not the stage that exports them.
        settings = self.context.recipe.benchmark.model_dump(mode="json", exclude={"table"})
        known = {"compact": self.compact.files, "benchmark": settings, "single_calls": self._single_calls}
        machine = {"node": platform.node(), "onnxruntime": onnxruntime.__version__}
        return known | self.context.export_settings() | machine

    def work(self, directory: Path) -> None:
        context, settings, results = self.context, self.context.recipe.benchmark, list[dict[str, Any]]()
        for batch in settings.batch_sizes:
            context.journal.say(f"benchmark: {settings.provider}, threads {settings.threads}, batch {batch}")
            result = benchmark(
                {name: variant.path for name, variant in variants(self.dense, self.exported).items()},
                provider=settings.provider,
                threads=settings.threads,
                batch=batch,
                min_seconds=settings.seconds,
                seed=context.recipe.seed,
                single_calls=self._single_calls,
            )
            result.save_samples(directory / samples_name(batch))
            results.append(dict(benchmark_of(result)) | {"environment": result.environment})
        write_facts(directory / BENCHMARKS, results)
        write_facts(directory / BATCH, self._batch_choice())

    def _batch_choice(self) -> BatchChoice:
        """Whether the file takes any batch, and how fast the other kind would be at the first batch size."""
        settings, dynamic = self.context.recipe.benchmark, self.context.recipe.export.dynamic_batch
        with TemporaryDirectory() as directory:
            other = Path(directory, "other.onnx")
            self.context.export(self.compact.load(), other, {}, dynamic=not dynamic)
            seconds = min(CANDIDATE_SECONDS, settings.seconds)
            files = {"mine": self.exported.file, "other": other}
            found = benchmark(files, **settings_of(settings), min_seconds=seconds, memory=False).speedups["other"]
        return BatchChoice(dynamic=dynamic, other=speedup_of(found))

    @property
    def benchmarks(self) -> list[Measured]:
        """A measurement for every batch size."""
        return read_facts(self.directory / BENCHMARKS, list[Measured])

    @property
    def environment(self) -> dict[str, Any]:
        """The machine that they were made on."""
        return dict(read_json(self.directory / BENCHMARKS)[0]["environment"])

    @property
    def batch(self) -> BatchChoice:
        """What the other kind of batch would cost."""
        return read_facts(self.directory / BATCH, BatchChoice)


def samples_name(batch: int) -> str:
    """Return the name of the file with the raw latencies at a batch size."""
    return f"samples-batch{batch}.json"
