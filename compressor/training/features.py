"""Distillation of stage features: where a network looks, map by map (Zagoruyko & Komodakis, ICLR 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Maps = dict[tuple[int, ...], Tensor]


@contextmanager
def stage_maps(model: nn.Module | None) -> Iterator[Maps]:
    """Watch a network: after every pass, the last output (batch, channels, height, width) of each height and width.

    The outputs of one size are those of a stage; a pass replaces those of the pass before. Without a network there is
    nothing to see.
    """
    maps: Maps = {}

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            maps[tuple(output.shape[2:])] = output

    handles = [module.register_forward_hook(note) for module in model.modules()] if model is not None else []
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def attention_loss(own: Mapping[tuple[int, ...], Tensor], target: Mapping[tuple[int, ...], Tensor]) -> Tensor:
    """How differently two networks look at the same images, summed over their stages.

    A map of attention is the mean square over the channels, so that networks of other widths compare. Each is scaled to
    length 1; the loss is their squared distance, averaged over the batch.
    """
    sizes = [size for size in own if size in target]
    losses = [(_attention(own[size]) - _attention(target[size])).square().sum(1).mean() for size in sizes]
    return torch.stack(losses).sum() if losses else torch.zeros(())


def _attention(maps: Tensor) -> Tensor:
    return F.normalize(maps.float().square().mean(1).flatten(1))
