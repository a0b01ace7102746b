"""From a network to its couplings: mark and see, for what operations make and for raw parameters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd

from compressor.errors import InputError
from compressor.structure.tensors import duplicate
from compressor.structure.tracing.auxiliary import containers_training, runs_auxiliary
from compressor.structure.tracing.couplings import Couplings
from compressor.structure.tracing.decode import Search
from compressor.structure.tracing.ops import Lane, Port, TensorNames, WeightCall
from compressor.structure.tracing.passes import Clock, Passes
from compressor.structure.tracing.record import Record, Source


def find_couplings(model: nn.Module, inputs: tuple[Any, ...], seen: Collection[str], *, seconds: float) -> Couplings:
    """Find all couplings of a network that is in evaluation mode.

    What does not run then (auxiliary heads) is looked for in a second run in which the modules that contain
    others believe to be training.

    Args:
        model: The network; its weights are the same afterwards.
        inputs: What `model(*inputs)` takes.
        seen: The parameters that it used then.
        seconds: Processor time after which the search ends; channels whose couplings are not known then are fixed.

    Raises:
        InputError: The network takes another way from run to run.
    """
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels lose NaN
        return _find_couplings(model, inputs, seen, Clock(seconds))


def _find_couplings(model: nn.Module, inputs: tuple[Any, ...], seen: Collection[str], clock: Clock) -> Couplings:
    names = TensorNames(model)
    couplings = Couplings()
    _look(couplings, Passes(model, inputs, names, clock))
    if runs_auxiliary(model, inputs, seen):
        _look_in_training(couplings, duplicate(model), inputs, clock)
    return couplings


def _look_in_training(couplings: Couplings, model: nn.Module, inputs: tuple[Any, ...], clock: Clock) -> None:
    """Look at a copy, whose weights may change; one that takes another way in every run shows nothing reliable."""
    try:
        with containers_training(model):
            _look(couplings, Passes(model, inputs, TensorNames(model), clock, main=False))
    except (InputError, RuntimeError):
        return
    couplings.auxiliary = True


def _look(couplings: Couplings, passes: Passes) -> None:
    record = passes.record
    known, earlier = {call.weight for call in couplings.calls}, {port.tensor for port in couplings.ports}
    couplings.calls += record.calls if not known else [c for c in record.calls if c.weight not in known]
    couplings.norms = record.norms | couplings.norms
    couplings.summed = (couplings.summed | record.summed) - record.otherwise_used
    for call in record.calls:
        _join_bias(couplings, call)
        if call.depthwise and call.source is not None:
            _join_multiplier(couplings, call.source)
    Search(passes, couplings, earlier).run(record.sources)
    raw = _raw_sources(couplings, passes)
    if raw:
        record.sources = raw
        Search(passes, couplings).run(raw)
    _fix_unfed(couplings, record)


def _fix_unfed(couplings: Couplings, record: Record) -> None:
    """Inputs that nothing was seen to feed come from outside."""
    read = [couplings.places(record.sinks[sink]) for sink in record.sink_calls]
    joined = np.zeros(couplings.total, dtype=bool)
    for left, right in couplings.pairs:
        joined[left] = joined[right] = True
    couplings.fixed += [(places[~joined[places]], "it reads the network's input") for places in read]


def _join_multiplier(couplings: Couplings, lane: Lane) -> None:
    """A depthwise convolution makes several channels of one: they stay together."""
    rows, channels = lane.port.size, len(lane.coordinates)
    first = np.repeat(couplings.places(lane), rows // channels)
    couplings.join(first, couplings.places(Lane(lane.port, tuple(range(rows)))))


def _join_bias(couplings: Couplings, call: WeightCall) -> None:
    if call.bias is None or call.source is None:
        return
    lane = Lane(call.source.port, tuple(range(call.source.port.size))) if call.depthwise else call.source
    size = len(lane.coordinates)
    couplings.join(couplings.places(lane), couplings.places(Lane(Port(call.bias, 0, size), tuple(range(size)))))


def _raw_sources(couplings: Couplings, passes: Passes) -> list[Source]:
    """The axes of all tensors that no operation was seen to use, but for weights of layers that went unrecognised."""
    known = {port.tensor for port in couplings.ports}
    known |= {f"{name}.weight" for name, m in passes.model.named_modules() if isinstance(m, (_ConvNd, nn.Linear))}
    raw: list[Source] = []
    for name, tensor in passes.names.tensors.items():
        if name in known or not tensor.is_floating_point():
            continue
        for axis, size in enumerate(tensor.shape):
            if size > 1:
                raw.append(Source(len(raw), Lane(Port(name, axis, size), tuple(range(size)))))
    return raw
