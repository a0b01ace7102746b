"""What an error in an output of a consumer counts: the metric in which its outputs are imitated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from compressor.selection.base import Calibration
from compressor.selection.fisher import gradients
from compressor.selection.moments import Moments
from compressor.selection.prices import held_out
from compressor.structure.surgery.linear import read_matrix, viewed
from compressor.support.batches import sizes_of
from compressor.support.modules import named_tensors

Scales = dict[str, Tensor]


def batch_norm(calibration: Calibration, moments: Mapping[str, Moments]) -> Scales:
    """What the batch norm that follows makes of an error; 1 without one."""
    scales = {}
    for name, own in moments.items():
        norm = calibration.groups.norms.get(own.call.layer)
        if norm is not None:
            module = calibration.model.get_submodule(norm)
            assert isinstance(module.running_var, Tensor) and isinstance(module.eps, float)
            scale = (module.running_var.double() + module.eps).rsqrt()
            if isinstance(module.weight, Tensor):
                scale = scale * module.weight.detach().double().abs()
            scales[name] = scale.reshape(own.scale.shape)
    return scales


def kfac(calibration: Calibration, moments: Mapping[str, Moments]) -> Scales:
    """How much the outputs of the whole network mind an error, to second order.

    That is the diagonal of the output factor of K-FAC (Martens and Grosse, Optimizing Neural Networks with Kronecker-
    factored Approximate Curvature, ICML 2015), for the divergence from the dense network. With inputs and gradients
    taken as independent, the expected squares of the weights' gradients are the products of both factors' diagonals.
    """
    tensors = named_tensors(calibration.model)
    names = list(moments)
    sums = {name: torch.zeros_like(moments[name].scale) for name in names}
    images = held_out(calibration)
    for found in gradients(calibration.model, names, images, calibration.seed, calibration.task):
        for name, gradient in zip(names, found, strict=True):
            call = moments[name].call
            matrix = read_matrix(replace(call, operand=viewed(call, tensors[name], gradient.contiguous())))
            sums[name] += matrix.double().square().sum(2)
    count = sum(sizes_of(images))
    return {name: (sums[name] / count / own.power.clamp_min(1e-30)[:, None]).sqrt() for name, own in moments.items()}


METRICS: dict[str, Callable[[Calibration, Mapping[str, Moments]], Scales]] = {"batch_norm": batch_norm, "kfac": kfac}
