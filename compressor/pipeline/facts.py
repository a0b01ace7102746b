"""What a forecast is told from: a timed pass and a timed reading, and numbers of the recipe and the data."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from time import perf_counter, thread_time
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from compressor.budget.search.speedup import CANDIDATE_SECONDS
from compressor.budget.targets.base import make_target
from compressor.data import calibration_batches
from compressor.gates.settings import EPOCHS, is_gate
from compressor.pipeline.context import RunContext
from compressor.pipeline.forecast import Facts
from compressor.support import distributed
from compressor.support.modules import inference

READ = 32
"""Images that are read to see how long that takes: the first of those that the calibration takes."""
ENOUGH_SECONDS, MOST_PASSES = 1.0, 20
SHARE = 0.5
"""What is left of a network, for targets that do not say."""


def facts_of(context: RunContext) -> Facts:
    """Measure and count what the time of a run depends on."""
    recipe, model = context.recipe, context.loaded.model
    compress, settings, data = recipe.compress, recipe.finetune, context.data
    target, images = make_target(compress.target.asked), compress.calibration.images
    training, device = _count(data.train, recipe.data.batch_size), PartialState().device
    load, (forward, waiting) = _load(context), _forward(context, model)
    elsewhere = device.type != "cpu"
    return Facts(
        forward=forward,
        training_forward=_forward(context, copy.deepcopy(model).to(device))[0] if elsewhere else forward,
        load=load,
        waiting=waiting,
        layers=sum(getattr(module, "weight", None) is not None for module in model.modules()),
        units=tuple(group.size for group in context.loaded.groups),
        calibration=images // distributed.count(),
        validation=_count(data.validation, recipe.data.batch_size) // distributed.count() or images,
        trained=settings.epochs * training // distributed.count(),
        gated=(compress.epochs or EPOCHS) * training // distributed.count() if is_gate(compress) else 0,
        method=context.method.name if context.method else compress.method,
        exports=target.exports,
        refits=target.refits if context.loaded.cost.macs * images <= target.max_refit_macs else 0,
        share=target.share or SHARE,
        refit=compress.refit,
        distill=settings.distill,
        measured=(recipe.benchmark.seconds,) * len(recipe.benchmark.batch_sizes),
        candidate=min(CANDIDATE_SECONDS, recipe.benchmark.seconds),
    )


def _load(context: RunContext) -> float:
    """Seconds to read an image."""
    images = min(READ, context.recipe.compress.calibration.images)
    started = perf_counter()
    list(calibration_batches(context.data, images, images, context.recipe.seed)[0])
    return (perf_counter() - started) / images / max(1, context.recipe.data.workers)


def _forward(context: RunContext, model: nn.Module) -> tuple[float, float]:
    """Seconds of a pass through the network for each image, and how many times the processor time that was."""
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    batch = tuple(tensor.to(device) for tensor in context.real_inputs)
    with inference(model):
        model(*batch)  # warms up
        passes, started, worked = 0, perf_counter(), thread_time()
        while not passes or (perf_counter() - started < ENOUGH_SECONDS and passes < MOST_PASSES):
            model(*batch)
            passes += 1
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds, working = perf_counter() - started, thread_time() - worked
    return seconds / passes / len(batch[0]), max(1.0, seconds / max(working, 1e-6)) if device.type == "cpu" else 1.0


def _count(loader: Iterable[Any] | None, batch_size: int) -> int:
    """Number of images that a loader gives, as far as it says so."""
    size: Any = getattr(getattr(loader, "dataset", None), "__len__", None)
    batches: Any = getattr(loader, "__len__", None)
    return int(size()) if size else int(batches()) * batch_size if batches else 0
