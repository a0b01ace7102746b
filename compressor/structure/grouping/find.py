"""Finding the channel groups of a network: what can be cut, what cannot, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase, ObserverBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves, tree_map

from compressor.errors import InputError
from compressor.structure.flow import Flow
from compressor.structure.grouping.grouping import Survey
from compressor.structure.grouping.validation import failing_groups, vanishing_groups
from compressor.structure.groups import Groups, Skipped
from compressor.structure.surgery.silence import shifts_of
from compressor.structure.tracing.auxiliary import Touched, runs_auxiliary
from compressor.structure.tracing.couplings import Couplings
from compressor.structure.tracing.find_couplings import find_couplings
from compressor.structure.tracing.ops import TensorNames, used_weights
from compressor.structure.tracing.record import COMPUTED_PREFIX
from compressor.support.modules import evaluating, named_tensors, remembering
from compressor.support.suggest import nearest

SECONDS, PASSES = 120.0, 100
"""Time limit of the search: CPU seconds, or the time of this many forward passes."""
SMALL = 96
"""Pixels to a side at which networks are watched."""


def find_groups(
    model: nn.Module,
    example_inputs: Tensor | tuple[Any, ...],
    *,
    keep: Sequence[str] = (),
    inexact: bool = False,
    seconds: float | None = None,
) -> Groups:
    """Find the channel groups of a network by watching it run.

    Every group that is returned has passed a trial: some of its units were cut, in several ways, and the shrunk network
    computed what the masked one computes.

    Args:
        model: The network; it is left as it was.
        example_inputs: A tensor of shape (batch, ...), or a tuple of what `model(*inputs)` takes. One item is enough.
        keep: Patterns (`layer1`, `*.classifier`) of layers that must stay as they are, with all that they contain.
        inexact: Also return groups whose channels a layer norm (with weights, over the last axis) or a group norm of a
            single group reads, such as the embedding of a transformer. What is left of them computes something else,
            which only training makes up for; the trial compares it with the masked network whose norms look at the
            kept channels.
        seconds: Processor time for finding the couplings; layers for which it is not enough are skipped. By default two
            minutes, or as long as a hundred passes where that is more.

    Returns:
        The groups in the order of the data; `skipped` lists what cannot be pruned, as (layers, reason).

    Raises:
        InputError: A pattern matches no layer, the network does not run twice in the same way, or it is
            not plain any more: compiled, exported, prepared for quantisation.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> groups = compressor.find_groups(model, torch.zeros(1, 4))
        >>> [(group.name, group.size) for group in groups]
        [('0', 8)]
        >>> [layers for layers, reason in groups.skipped]
        [('2',)]
    """
    _check_plain(model)
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    kept = _match(model, keep)
    with evaluating(model), remembering(model):
        started = process_time()
        with Touched(TensorNames(model)) as touched:
            uses = used_weights(model, inputs)
        limit = max(SECONDS, PASSES * (process_time() - started)) if seconds is None else seconds
        small = _smaller(model, inputs, uses, touched.names)
        couplings = find_couplings(model, small, touched.names, seconds=limit)
    survey = Survey(couplings, _owners(model), inexact=inexact)
    groups, skipped = survey.groups(kept)
    bad = failing_groups(model, groups, small, auxiliary=couplings.auxiliary)
    good = [g for g in groups if g.name not in bad]
    flow = couplings.flow
    gone = vanishing_groups(model, Groups(tuple(good), flow=flow), small) if flow is not None else set()
    skipped += [Skipped(g.producers, bad[g.name]) for g in groups if g.name in bad]
    skipped += _unseen(model, couplings)
    batch = next((t.shape[0] for t in inputs if isinstance(t, Tensor) and t.dim()), 1)
    positions: Counter[str] = Counter()
    for weight, count in uses:
        positions[weight] += count
    calls = Counter(weight for weight, _ in uses)
    return Groups(
        tuple(replace(g, vanishes=g.name in gone) for g in good),
        tuple(_gather(skipped)),
        {name: count // batch for name, count in positions.items()},
        couplings.norms,
        frozenset(name for name, count in calls.items() if count > 1),
        flow or Flow(),
        shifts_of(model, couplings),
    )


def _check_plain(model: nn.Module) -> None:
    """Refuse networks that are no longer the Python code and the weights that they were made of."""
    for name, module in model.named_modules():
        problem = next((problem for kind, problem in _NOT_PLAIN.items() if kind(module)), None)
        if problem is not None:
            raise InputError(problem, where=name or "the model", cure="give the plain nn.Module, before that was done")


_NOT_PLAIN: dict[Callable[[nn.Module], bool], str] = {
    lambda m: isinstance(m, torch.jit.ScriptModule): "it is a TorchScript module",
    lambda m: "_orig_mod" in m._modules: "it was compiled by torch.compile",
    lambda m: "eval" in vars(m): "it is an exported program, which has no evaluation mode",
    lambda m: isinstance(m, (FakeQuantizeBase, ObserverBase)): "it was prepared for quantisation",
}


def _smaller(model: nn.Module, inputs: tuple[Any, ...], uses: list[tuple[str, int]], seen: set[str]) -> tuple[Any, ...]:
    """Smaller pictures, where the network takes them and does the same with them: couplings depend on no size."""
    cropped = tree_map(_crop, inputs)
    if all(a is b for a, b in zip(tree_leaves(cropped), tree_leaves(inputs), strict=True)):
        return inputs
    with remembering(model):
        try:
            same = [weight for weight, _ in used_weights(model, cropped)] == [weight for weight, _ in uses]
            same = same and (runs_auxiliary(model, cropped, seen) or not runs_auxiliary(model, inputs, seen))
        except Exception:
            same = False
    return cropped if same else inputs


def _crop(value: Any) -> Any:
    large = isinstance(value, Tensor) and value.dim() >= 4 and min(value.shape[-2:]) > SMALL
    return value[..., :SMALL, :SMALL] if large else value


def _match(model: nn.Module, patterns: Sequence[str]) -> dict[str, str]:
    layers = [name for name, _ in model.named_modules() if name]
    kept: dict[str, str] = {}
    for pattern in patterns:
        hits = [n for n in layers if fnmatchcase(n, pattern)]
        if not hits:
            near = nearest(pattern, layers, 3, cutoff=0.3) or layers[:3]
            raise InputError(
                f"'{pattern}' matches no layer", where="compress.keep", cure=f"layers are called {', '.join(near)}"
            )
        inside = [n for n in layers if any(n == hit or n.startswith(f"{hit}.") for hit in hits)]
        kept |= dict.fromkeys(inside, pattern)
    return kept


def _owners(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The layers that a tensor belongs to, by its first name: several where it is shared."""
    owners: dict[int, dict[str, None]] = defaultdict(dict)
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        owners[id(tensor)][name.rpartition(".")[0]] = None
    return {name: tuple(owners[id(tensor)]) for name, tensor in named}


def _unseen(model: nn.Module, couplings: Couplings) -> list[Skipped]:
    """Layers of which no operation was recognised."""
    tensors = named_tensors(model)
    seen = {id(tensors[call.weight]) for call in couplings.calls}
    computing = {p.tensor.removeprefix(COMPUTED_PREFIX).partition("#")[0] for p in couplings.ports}
    skipped = []
    for name, module in model.named_modules():
        if not isinstance(module, (_ConvNd, nn.Linear)) or id(module._parameters.get("weight")) in seen:
            continue
        computed = "weight" not in module._parameters or name in computing
        unused = "not executed on the example input; its inputs may be pruned"
        reason = "its weight is computed from other tensors" if computed else unused
        skipped.append(Skipped((name,), reason))
    return skipped


def _gather(skipped: Iterable[Skipped]) -> list[Skipped]:
    """One entry per reason, in the order of the first layer."""
    layers: dict[str, dict[str, None]] = defaultdict(dict)
    for item in skipped:
        layers[item.reason] |= dict.fromkeys(item.layers)
    return [Skipped(tuple(names), reason) for reason, names in layers.items()]
