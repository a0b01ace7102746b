"""What fine-tuning tells: the training curve, dead units, and how far it has come; reports hold it as it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from compressor.support.ranges import Count, Number


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    Attributes:
        epoch: Its number, from 1.
        loss: Mean training loss.
        accuracy: That of the metrics, where it is among them.
        lr: Learning rate of the last step; reports of version 0.1.0 have none of the rest.
        seconds: Duration.
        images_per_second: Throughput over all processes.
        metrics: The task's main metric on the training images while training on them, by its name; empty where it is
            not the mean over images.
    """

    epoch: Count
    loss: float
    accuracy: float | None = None
    lr: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


History = list[Epoch]

BEFORE = "before"
"""What stands for the weights that training began with."""


@dataclass(frozen=True)
class Activity:
    """The units of a layer whose output goes straight into a rectifier.

    Attributes:
        layer: Its name.
        units: Number of units.
        dead: Units that never fire on the images.
        raised: Units that fire too rarely, dead ones among them, and were raised.
    """

    layer: str
    units: Number
    dead: Count
    raised: Count


@dataclass(frozen=True)
class Progress:
    """How far fine-tuning has come.

    Attributes:
        step: Batches done, of `steps` in all epochs together.
        steps: Batches in all epochs together.
        epoch: The running epoch, from 1.
        epochs: Number of epochs.
        loss: Mean training loss of the running epoch so far.
        metrics: The task's main metric in the running epoch so far, as in `Epoch`.
        lr: Learning rate of the last step.
        seconds: Time of the running epoch so far.
        seconds_left: Estimate of the time to the end.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    metrics: dict[str, float]
    lr: float
    seconds: float
    seconds_left: float
