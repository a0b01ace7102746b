"""A report with numbers as a run would find them, for the tests of everything that shows one."""

from __future__ import annotations

import numpy as np

from compressor.gates.history import GateEpoch
from compressor.report.schema import (
    Benchmark,
    Finetune,
    Group,
    Latency,
    Network,
    Parity,
    Report,
    Rule,
    Score,
    Scores,
    Speedup,
)
from compressor.report.writers.base import Samples
from compressor.training.history import Activity, Epoch

ENVIRONMENT = {"cpu": "A CPU", "cores": 2, "providers": ["CPUExecutionProvider"]}


def benchmark(batch: int = 1, low: float = 1.71) -> Benchmark:
    """Return a measurement whose speed-up has the given lower end."""
    dense = Latency(p50_ms=3.31 * batch, p90_ms=3.5 * batch, p99_ms=4.1 * batch, samples=900)
    compact = Latency(p50_ms=1.89 * batch, p90_ms=2.0 * batch, p99_ms=2.4 * batch, samples=900)
    speedup = Speedup(median=low + 0.04, low=low, high=low + 0.08)
    models = {"dense": dense, "compact": compact}
    return Benchmark(provider="cpu", threads=1, batch=batch, models=models, speedup=speedup)


def report(**changes: object) -> Report:
    """Return an accepted report, with some fields changed."""
    rules = [
        Rule(name="target", required=0.5, measured=0.4973, passed=True, text="share of macs that is kept"),
        Rule(name="accuracy_drop", required=0.03, measured=0.0217, passed=True, text="top-1 lost"),
        Rule(name="speedup", required=1.6, measured=1.71, passed=True, text="lower end of the interval"),
        Rule(name="parity", required=1e-4, measured=3.1e-7, passed=True, text="largest difference"),
    ]
    groups = [
        Group(name=f"layer{1 + i // 3}.{i % 3}.conv1", layers=["a", "b"], size=16 << i // 3, kept=(7 + i) << i // 3)
        for i in range(9)
    ]
    reason = "its channels are added to a padded shortcut, which would have to be cut as well"
    moved = [{g.name: (g.size or 0) - (e / 3) * ((g.size or 0) - (g.kept or 0)) for g in groups} for e in range(1, 4)]
    epochs = [Score(accuracy=0.83 + 0.005 * e, loss=0.5 - 0.01 * e) for e in range(1, 6)]
    judged = Scores(before=Score(accuracy=0.79, loss=0.61), epochs=epochs)
    values: dict[str, object] = {
        "environment": ENVIRONMENT,
        "versions": {"compressor": "0.1.0", "torch": "2.15.0"},
        "recipe": {"model": {"builder": "model.py:resnet20"}, "compress": {"target": {"macs": 0.5}}},
        "dense": Network(params=269722, macs=40551040, accuracy=0.8761, onnx_bytes=1103312),
        "pruned": Network(params=141002, macs=20167000, accuracy=0.7912),
        "compact": Network(params=141002, macs=20167000, accuracy=0.8544, onnx_bytes=590233),
        "groups": [*groups, Group(name="conv1", layers=["conv1", "layer1.0.conv2"], reason=reason)],
        "parity": Parity(max_abs=2.1e-6, max_rel=3.1e-7),
        "benchmarks": [benchmark(), benchmark(batch=8)],
        "accept": rules,
        "seconds": {"dense": 12.3, "finetune": 241.0},
        "finetune": Finetune(delivered="epoch 5", held_out=judged, images=1000),
        "gates": [
            GateEpoch(epoch=e, expected=widths, thresholded={name: round(width) for name, width in widths.items()})
            for e, widths in enumerate(moved, start=1)
        ],
        "activity": [Activity(layer="layer1.0.bn1", units=7, dead=1, raised=2)],
        "history": [Epoch(epoch=e, loss=0.9 / e, accuracy=0.8 + 0.02 * e) for e in range(1, 6)],
    }
    return Report(**(values | changes))  # type: ignore[arg-type]


def with_int8() -> Report:
    """Return a report of a run with four files, of which the quantised compact one is delivered."""
    files: dict[str, object] = {name: file.model_dump() for name, file in report().files.items()}
    for network, size in (("dense", 280111), ("compact", 151222)):
        files[f"{network}_int8"] = {"network": network, "bytes": size, "precision": "int8"}
    benchmarks = []
    for bench in report().benchmarks:
        faster = {f"{name}_int8": m.model_copy(update={"p50_ms": m.p50_ms / 2}) for name, m in bench.models.items()}
        last = Speedup(median=3.5, low=3.4, high=3.6)
        speedups = {"compact": bench.speedup, "dense_int8": Speedup(median=2, low=1.9, high=2.1), "compact_int8": last}
        changes = {"models": bench.models | faster, "speedups": speedups, "speedup": last, "delivered": "compact_int8"}
        benchmarks.append(bench.model_copy(update=changes))
    return report(files=files, benchmarks=benchmarks)


def samples(of: Report) -> Samples:
    """Return raw latencies that fit the medians of a report."""
    rng = np.random.default_rng(0)
    return [
        {name: (model.p50_ms * (1 + rng.gamma(2, 0.02, 900))).tolist() for name, model in bench.models.items()}
        for bench in of.benchmarks
    ]
