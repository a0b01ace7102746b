"""Second-order estimate of what changes of the weights do to the outputs, from one backward pass per pair of images.

With `F` the second derivative of the task's divergence at the outputs of the dense network, a change `d` of the outputs
brings the divergence `d F d / 2` to second order; for the KL divergence, `F` is the Fisher matrix. A random vector `v`
with covariance `F` makes that the expectation of `(v d)^2 / 2`, and `v d` is the scalar product of the change of the
weights with the gradient of `v * outputs`, the task's `projection`.
Images have random vectors of their own, so the square of a sum over some images is expected to be the sum of their
squares: they go in pairs, because the code of some networks takes a batch of one for something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from compressor.support.batches import Batch, sizes_of
from compressor.support.modules import evaluating, named_tensors
from compressor.tasks import DEFAULT, Task

STACK_BYTES = 2**28
"""Most memory for the gradients of pairs that are multiplied at a time."""

Change = Mapping[str, Tensor]


def divergences(
    model: nn.Module,
    changes: Sequence[Change],
    images: Sequence[tuple[Any, ...]],
    *,
    seed: int = 0,
    task: Task = DEFAULT,
) -> list[float]:
    """Mean rise of the divergence from the dense network, in the units of the task's `projection`, for every change.

    Args:
        model: The dense network.
        changes: What is added to parameters, and to the running means of batch norms, by their names.
        images: Batches of inputs. All tensors of a batch have the images on their first axis.
        seed: Draws the random vectors.
        task: What the network is for.
    """
    names = list(dict.fromkeys(name for change in changes for name in change))
    rows = {name: [i for i, change in enumerate(changes) if name in change] for name in names}
    stacked = {name: torch.stack([changes[i][name].flatten() for i in rows[name]]) for name in names}
    size = max(1, STACK_BYTES // (4 * max(1, sum(stack.shape[1] for stack in stacked.values()))))
    squares, count = torch.zeros(len(changes), dtype=torch.float64), sum(sizes_of(images))
    for found in _stacks(gradients(model, names, images, seed, task), size):
        effects = torch.zeros(len(changes), len(found[0]), dtype=torch.float64)
        for name, gradient in zip(names, found, strict=False):
            effects[rows[name]] += (stacked[name] @ gradient.flatten(1).t()).double().cpu()
        squares += effects.square().sum(1)
    return (squares / (2 * count)).tolist()


def _stacks(gradients: Iterator[list[Tensor]], size: int) -> Iterator[list[Tensor]]:
    """Gradients of up to `size` pairs, stacked."""
    waiting: list[list[Tensor]] = []
    for gradient in gradients:
        waiting.append(gradient)
        if len(waiting) == size:
            yield [torch.stack(parts) for parts in zip(*waiting, strict=True)]
            waiting = []
    if waiting:
        yield [torch.stack(parts) for parts in zip(*waiting, strict=True)]


def gradients(
    model: nn.Module, names: Sequence[str], images: Sequence[tuple[Any, ...]], seed: int, task: Task = DEFAULT
) -> Iterator[list[Tensor]]:
    """Gradients of `v * outputs` by the named tensors, pair by pair; one of three where the number is odd."""
    tensors = named_tensors(model)
    means = [name for name in names if name.endswith(".running_mean")]
    generator = torch.Generator().manual_seed(seed)
    with evaluating(model), ExitStack() as stack:
        shifts = {name: stack.enter_context(_shifted(model, name)) for name in means}
        leaves = {n: tensors[n].detach().clone().requires_grad_() for n in names if n not in shifts}
        wanted = [shifts[name] if name in shifts else leaves[name] for name in names]
        for batch in images:
            pairs = max(1, len(batch[0]) // 2)
            for pair in zip(*(t.tensor_split(pairs) for t in batch), strict=True):
                with torch.enable_grad():
                    outputs = functional_call(model, leaves, pair)
                    total = task.projection(outputs, partial(_dense, model, batch), generator)
                found = torch.autograd.grad(total, wanted, allow_unused=True)
                yield [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]


@contextmanager
def _shifted(model: nn.Module, name: str) -> Iterator[Tensor]:
    """A tensor of zeros that counts as if it were added to the running mean of a batch norm."""
    norm = model.get_submodule(name.rpartition(".")[0])
    mean, variance, eps = norm.running_mean, norm.running_var, norm.eps
    assert isinstance(mean, Tensor) and isinstance(variance, Tensor) and isinstance(eps, float)
    scale = (variance + eps).rsqrt() * (norm.weight.detach() if isinstance(norm.weight, Tensor) else 1.0)
    shift = torch.zeros_like(mean).requires_grad_()
    handle = norm.register_forward_hook(lambda _, __, out: out - (shift * scale).reshape(-1, *[1] * (out.dim() - 2)))
    try:
        yield shift
    finally:
        handle.remove()


def _dense(model: nn.Module, batch: Batch) -> Any:
    with torch.no_grad():
        return model(*batch)
