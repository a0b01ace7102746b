"""How long the stages of a run will take, told from what reading an image and passing it through the network take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PASSES = {"random": 0.0, "magnitude": 0.0, "bn_scale": 0.0, "taylor": 4.0}
"""Forward passes over the calibration images that a ranking takes, by method."""
IMITATION, REFIT, STEP, GATED = 3.5, 4.0, 3.0, 1.3
"""Passes of a ranking that is not listed, of the refit, of a training step; and what gates multiply the last by."""
GREEDY, TRIED = ("greedy_forward", "imitate_global", "imitate_both"), 0.06
"""Methods that try units on the whole network, and the part of a pass that trying one unit takes."""
FIRST_EXPORT, EXPORT, EXPORTED_LAYER = 3.0, 1.5, 0.06
"""Seconds of the exporter's start, of an export, and of each of its layers."""
OPENED, JUDGED = 1.0, 5.0
"""Seconds besides the measuring of a measurement on the way, and of one in the end."""
PROFILED_GROUP = 5.0
"""Seconds of a latency table, for each group."""


@dataclass(frozen=True)
class Facts:
    """What the time of a run depends on.

    Attributes:
        forward: Seconds of a forward pass of the dense network, for each image.
        training_forward: The same where it is trained, on an accelerator if there is one.
        load: Seconds to read an image.
        waiting: How many times its processor time everything takes, because others use the processor.
        layers: Number of layers with weights.
        units: Number of units of every channel group.
        calibration, validation: Number of images of each kind.
        trained, gated: Images that are seen in all epochs of fine-tuning, and while gates learn.
        method: What ranks.
        exports, refits: Networks that the search for widths measures, and those that it refits.
        share: About how much of the dense network will be left.
        refit: Whether layers are solved again.
        distill: Whether training asks the dense network as well.
        measured: Seconds that each measurement in the end takes.
        candidate: Seconds that a measurement on the way takes.
    """

    forward: float
    training_forward: float
    load: float
    waiting: float
    layers: int
    units: tuple[int, ...]
    calibration: int
    validation: int
    trained: int
    gated: int
    method: str
    exports: int
    refits: int
    share: float
    refit: bool
    distill: bool
    measured: tuple[float, ...]
    candidate: float


def forecast(facts: Facts) -> dict[str, float]:
    """Return the seconds of every stage that a run can have."""
    f = facts
    export, opened = f.waiting * (EXPORT + EXPORTED_LAYER * f.layers), f.waiting * OPENED
    refit = f.refit * REFIT * f.calibration * f.forward
    evaluate = f.validation * f.forward
    searching = f.exports * (export + f.candidate + opened) + f.refits * (refit + evaluate)
    return {
        "export-dense": export + f.waiting * FIRST_EXPORT,
        "evaluate-dense": evaluate + f.validation * f.load,
        "select": f.calibration * (f.load + f.forward * _passes(f)),
        "profile": export + f.waiting * PROFILED_GROUP * len(f.units),
        "gates": f.gated * (f.load + f.training_forward * (STEP * GATED + f.distill)),
        "plan": searching + opened,
        "shrink": refit + evaluate * f.share,
        "finetune": f.trained * (f.load + f.training_forward * (STEP * f.share + f.distill)) + evaluate * f.share,
        "export-compact": export + opened,
        "benchmark": sum(f.measured) + f.waiting * JUDGED * len(f.measured) + export + f.candidate,
    }


def _passes(facts: Facts) -> float:
    """Forward passes over the calibration images that the ranking takes."""
    greedy = TRIED * sum(size**2 / 2 for size in facts.units) if facts.method in GREEDY else 0.0
    return PASSES.get(facts.method, IMITATION) + greedy


def describe(seconds: Mapping[str, float]) -> str:
    """Say in a line how long the stages of a run will take; those that are done already take no time."""
    left = {name: value for name, value in seconds.items() if value}
    if not left:
        return "forecast: nothing is left to do but the report"
    stages = ", ".join(f"{name} {_rounded(value)}" for name, value in left.items())
    return f"forecast: about {_rounded(sum(left.values()))} in all ({stages})"


def _rounded(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
