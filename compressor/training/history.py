"""What fine-tuning tells: the training curve, dead units, and how far it has come; reports hold it as it is."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.support.ranges import Count, Number


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    Attributes:
        epoch: Its number, from 1.
        loss: Mean training loss.
        accuracy: Share of training images answered right while training on them, 0 to 1.
        lr: Learning rate of the last step; reports of version 0.1.0 have none of the rest.
        seconds: Duration.
        images_per_second: Throughput over all processes.
    """

    epoch: Count
    loss: float
    accuracy: float | None = None
    lr: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None


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
        accuracy: Training accuracy of the running epoch so far, 0 to 1.
        lr: Learning rate of the last step.
        seconds: Time of the running epoch so far.
        seconds_left: Estimate of the time to the end.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    lr: float
    seconds: float
    seconds_left: float
