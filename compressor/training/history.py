"""What fine-tuning tells: the training curve, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    Attributes:
        epoch: Its number, from 1.
        loss: Mean training loss.
        metrics: The task's main metric on the training images while training on them, by its name; empty where it is
            not the mean over images.
        lr: Learning rate of the last step.
        seconds: Duration.
        images_per_second: Throughput over all processes.
    """

    epoch: int
    loss: float
    metrics: dict[str, float]
    lr: float
    seconds: float
    images_per_second: float


History = list[Epoch]

BEFORE = "before"
"""What stands for the weights that training began with."""


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
