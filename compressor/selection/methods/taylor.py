"""Units without which the loss would rise are kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from compressor.errors import InputError
from compressor.selection.base import Calibration, Method, Ranking, ranking_from_scores
from compressor.selection.units import sum_per_unit
from compressor.support.batches import Batch, cut, size_of
from compressor.support.footprint import inputs_in_a_pass


class Taylor(Method):
    """Score a unit by the first-order change of the loss when it is removed.

    Removing a unit zeroes it at the inputs of all its consumers, so the change is the sum of `weight * gradient` over
    the columns that read it. The absolute value is taken per mini-batch, after that sum, and averaged over them.
    """

    name = "taylor"
    summary = "keeps the units whose removal would change the loss most, to first order (needs labels)"
    paper = "Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019"
    needs_labels = True

    def rank(self, calibration: Calibration) -> dict[str, Ranking]:
        if calibration.labels is None:
            raise InputError(
                "taylor needs labels, and the data has none",
                where="compress.method",
                cure="choose 'imitation' or another method without labels, or give the data labels",
            )
        groups, total = calibration.groups, len(calibration.images)
        readers = {group.name: [part for part in group.slices if part.role == "consumer"] for group in groups}
        scores = {group.name: torch.zeros(group.size, dtype=torch.double) for group in groups}
        names = list(dict.fromkeys(part.tensor for parts in readers.values() for part in parts))
        for done, (images, labels) in enumerate(zip(calibration.images, calibration.labels, strict=True), start=1):
            effects = _effects(calibration, names, images, labels)
            for name, parts in readers.items():
                scores[name] += torch.stack([sum_per_unit(effects[part.tensor], part) for part in parts]).sum(0).abs()
            calibration.progress(done, total)
        return {group.name: ranking_from_scores(group, scores[group.name] / total) for group in groups}


def _effects(calibration: Calibration, names: list[str], images: tuple[Tensor, ...], labels: Any) -> dict[str, Tensor]:
    """`weight * gradient` of the task's loss, for every element of the named tensors."""
    state = calibration.model.state_dict()
    weights = {name: state[name].detach().clone().requires_grad_() for name in names}

    def gradients(part: Batch) -> tuple[Tensor, ...]:
        *inputs, wanted = part
        with torch.enable_grad():
            loss = calibration.task.loss(functional_call(calibration.model, weights, tuple(inputs)), wanted)
            share = size_of(part) / size_of(images) * loss
        return torch.autograd.grad(share, list(weights.values()))

    batch = (*images, labels)
    most = inputs_in_a_pass(calibration.model, batch, run=gradients)
    total = [sum(parts) for parts in zip(*map(gradients, cut([batch], most)), strict=True)]
    return {name: weight.detach() * total for (name, weight), total in zip(weights.items(), total, strict=True)}
