"""How good a network is on a dataset, by the metrics of its task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compressor.errors import InputError
from compressor.support import distributed
from compressor.support.batches import Batch, cut, joined, placed, size_of
from compressor.support.footprint import fitting, inputs_in_a_pass
from compressor.support.modules import inference
from compressor.tasks.base import Task
from compressor.tasks.classification import DEFAULT

CURE = "check data.source and data.root"


@dataclass(frozen=True)
class Evaluation:
    """Quality on a labelled dataset.

    Attributes:
        metrics: Those of the task by their names, the main one first; infinite or no numbers where the outputs are.
        images: Number of examples.
    """

    metrics: dict[str, float]
    images: int

    @property
    def main(self) -> float:
        """The main metric."""
        return next(iter(self.metrics.values()))


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    task: Task = DEFAULT,
    *,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
    together: bool = False,
) -> Evaluation:
    """Measure what the task calls good.

    Args:
        model: The network; its training flags are left as they were.
        loader: Batches with targets, as the task splits them.
        task: What the network is for.
        device: Where inputs are moved to; by default where the network's parameters are.
        progress: Called with (batches done, batches) after every batch, when the loader has a length.
        together: All processes of a run call this, each for its part of the images; each gets the metrics over all.

    Returns:
        The metrics over all images.

    Raises:
        InputError: the loader is empty, or targets and outputs do not go together.
    """
    device = device or _device(model)
    metrics, images = task.metrics(), torch.zeros(1, dtype=torch.float64)
    part = distributed.share(loader) if together else loader
    total, most = len(part) if isinstance(part, Sized) else 0, 0
    with inference(model):
        for done, batch in enumerate(part, start=1):
            inputs, targets = task.split(batch)
            inputs = placed(inputs, device)
            most = most or inputs_in_a_pass(model, inputs)
            outputs = joined([model(*few) for few in cut([inputs], most)])
            task.check(outputs, targets)
            targets = placed(targets, device)
            for metric in metrics.values():
                metric.update(outputs, targets)
            images += size_of(inputs)
            if progress and total:
                progress(done, total)
    if together:
        distributed.all_reduce_sum([images, *(state for metric in metrics.values() for state in metric.states())])
    if not images:
        raise InputError("there are no validation images", where="data", cure=CURE)
    return Evaluation({name: metric.compute() for name, metric in metrics.items()}, int(images))


def agreement(model: nn.Module, dense: nn.Module, batches: Sequence[Batch], task: Task = DEFAULT) -> float:
    """How far two networks agree without labels, as the task sees it: the mean over the inputs, 0 to 1.

    Args:
        model: The network.
        dense: What it is compared with.
        batches: Batches of inputs.
        task: What both are for.

    Raises:
        InputError: there are no inputs, or the outputs are none of the task.
    """
    same = images = 0.0
    with inference(model), inference(dense):
        for batch in fitting(dense, batches):
            ours, theirs = (placed(network(*placed(batch, _device(network))), "cpu") for network in (model, dense))
            task.check(ours)
            task.check(theirs)
            same += float(task.agreement(ours, theirs).double().sum())
            images += size_of(batch)
    if not images:
        raise InputError("there are no images to compare on", where="data", cure=CURE)
    return same / images


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
