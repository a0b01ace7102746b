"""How good a network is on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from compressor.errors import InputError
from compressor.support import distributed
from compressor.support.batches import Batch, cut
from compressor.support.footprint import fitting, inputs_in_a_pass
from compressor.support.modules import inference


@dataclass(frozen=True)
class Evaluation:
    """Quality on a labelled data set.

    Attributes:
        accuracy: Share of images whose best class is the label, 0 to 1.
        top5: Share of images whose label is among the best five classes.
        loss: Mean cross-entropy; NaN or infinite where the outputs are.
        images: Number of images.
    """

    accuracy: float
    top5: float
    loss: float
    images: int


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
    together: bool = False,
) -> Evaluation:
    """Measure top-1 and top-5 accuracy and the loss. An image with an output that is no finite number counts as wrong.

    Args:
        model: A network that returns logits [batch, classes]; its training flags are left as they were.
        loader: Batches (input, …, labels).
        device: Where inputs are moved to; by default where the network's parameters are.
        progress: Called with (batches done, batches) after every batch, when the loader has a length.
        together: All processes of a run call this, each for its part of the images; each gets the measures over all.

    Returns:
        The measures over all images.

    Raises:
        InputError: the loader is empty, or labels and outputs do not go together.
    """
    device = device or _device(model)
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    part = distributed.share(loader) if together else loader
    total, most = len(part) if isinstance(part, Sized) else 0, 0
    with inference(model):
        for done, (*inputs, labels) in enumerate(part, start=1):
            inputs = [x.to(device, non_blocking=True) for x in inputs]
            most = most or inputs_in_a_pass(model, tuple(inputs))
            logits = torch.cat([_logits(model, few, device) for few in cut([tuple(inputs)], most)])
            sums += _sums(logits, _check_labels(labels, logits).to(device))
            if progress and total:
                progress(done, total)
    sums = sums.cpu()
    if together:
        distributed.all_reduce_sum([sums])
    right, right5, loss, images = sums.tolist()
    if not images:
        raise InputError("there are no validation images", where="data", cure="check data.source and data.root")
    return Evaluation(right / images, right5 / images, loss / images, int(images))


def agreement(model: nn.Module, dense: nn.Module, batches: Sequence[Batch]) -> float:
    """Share of inputs for which both networks choose the same class, 0 to 1."""
    same = images = 0
    with inference(model), inference(dense):
        for batch in fitting(dense, batches):
            ours, theirs = (_logits(network, batch, _device(network)).cpu() for network in (model, dense))
            finite = ours.isfinite().all(1) & theirs.isfinite().all(1)
            same += int(((ours.argmax(1) == theirs.argmax(1)) & finite).sum())
            images += len(ours)
    if not images:
        raise InputError("there are no images to compare on", where="data", cure="check data.source and data.root")
    return same / images


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _logits(model: nn.Module, inputs: Sequence[Tensor], device: torch.device) -> Tensor:
    logits = model(*(x.to(device, non_blocking=True) for x in inputs))
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"the network returns {shape}, not [batch, classes]",
            where="model.builder",
            cure="let the builder return a network for classification",
        )
    return logits


def _check_labels(labels: Tensor, logits: Tensor) -> Tensor:
    if labels.shape != logits.shape[:1] or labels.is_floating_point():
        raise InputError(
            f"labels are {labels.dtype} {list(labels.shape)}, not a class number for each of {len(logits)} images",
            where="data.source",
            cure="give batches (input, …, labels) with integer labels of shape [batch]",
        )
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= logits.shape[1]:
        raise InputError(
            f"there is a label {low if low < 0 else high}, but the network has classes 0 to {logits.shape[1] - 1}",
            where="data",
            cure="make the network's number of classes (model.args) that of the data",
        )
    return labels


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Right answers, right among five, loss and images of a batch, summed."""
    best = logits.topk(min(5, logits.shape[1])).indices
    hits = (best == labels[:, None]) & logits.isfinite().all(1, keepdim=True)
    loss = cross_entropy(logits.float(), labels, reduction="sum")
    return torch.stack([hits[:, 0].sum(), hits.sum(), loss, torch.tensor(len(labels), device=loss.device)]).double()
