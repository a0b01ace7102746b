"""Refit: every layer re-solved by least squares, so that it imitates the dense network with the inputs it has left.

Layers are solved in the order of the data, each on what the already re-solved layers before it deliver, against what
the dense network computes from the same images (asymmetric target). So a layer that lost no inputs still makes up for
what the layers before it got wrong; a depthwise convolution does so by a scale and a shift per channel. A change of the
mean output goes into the bias or into the batch norm that follows. Needs no labels and no gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.factor import factor
from compressor.lockstep import in_step
from compressor.structure.groups import Groups, Slice
from compressor.structure.linear import read_matrix, read_outputs, read_rows, unit_columns, write_matrix
from compressor.structure.mask import zero_columns
from compressor.structure.plan import Plan
from compressor.structure.watch import WeightCall

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
HELD_OUT = 0.2
NEGLIGIBLE = 1e-6
WIDE = 5_000
ROWS_PER_INPUT, FEWEST_ROWS, ROWS_OF_WIDE = 5, 16_384, 2_048

Cuts = dict[str, list[tuple[Slice, tuple[int, ...]]]]


@dataclass(frozen=True)
class Refit:
    """What the refit did to one layer.

    Attributes:
        layer: The layer.
        before, after: Mean squared error of its output on held-out rows, relative to the output's variance, with the
            dense weights and with the new ones.
        applied: False where the new weights were not better; the dense ones stay.
    """

    layer: str
    before: float
    after: float
    applied: bool


def refit(
    model: nn.Module,
    plan: Plan,
    images: Sequence[tuple[Any, ...]],
    *,
    groups: Groups,
    seed: int = 0,
    progress: Any = None,
) -> tuple[nn.Module, list[Refit]]:
    """Re-solve all layers of a network that loses the units that the plan drops.

    Args:
        model: The dense network; left untouched.
        plan: What is kept.
        images: Batches of calibration inputs. The last fifth of the rows is held out, to choose the ridge and to judge.
        groups: What `find_groups` says of the network. Layers that run more than once are left alone.
        seed: Draws the positions where a layer has more of them than are needed.
        progress: Called with (done, total) after every layer.

    Returns:
        A network of the original widths in which the dropped units are no longer read, ready for `shrink`, and what was
        done.
    """
    fitted = copy.deepcopy(model)
    cuts = _cuts(fitted, plan)
    solver = _Solver(fitted, cuts, groups, seed)
    done: list[Refit] = []
    for calls in in_step(model, fitted, images, set(cuts)):
        done.append(solver.solve(calls))
        if progress is not None:
            progress(len(done), len(cuts))
    return fitted, done


def _cuts(model: nn.Module, plan: Plan) -> Cuts:
    """What every weight loses of its inputs; those inputs are zeroed here."""
    named = [*model.named_parameters(), *model.named_buffers()]
    tensors = {name: tensor for name, tensor in named if tensor.dim() > 1}
    cuts: Cuts = {name: [] for name in tensors}
    for planned in plan.groups:
        for s in planned.group.slices:
            if s.role == "consumer" and planned.dropped:
                cuts[s.tensor].append((s, planned.dropped))
                zero_columns(tensors[s.tensor].detach(), s, planned.dropped)
    return cuts


class _Solver:
    def __init__(self, model: nn.Module, cuts: Cuts, groups: Groups, seed: int) -> None:
        self.model, self.cuts, self.norms, self.seed = model, cuts, groups.norms, seed
        self.parameters = dict(model.named_parameters())
        self.repeated = groups.repeated

    def solve(self, calls: Sequence[tuple[WeightCall, WeightCall]]) -> Refit:
        """Solve one layer from the calls of all batches, and let the network go on with the result."""
        first = calls[0][1]
        if first.weight in self.repeated or first.input is None:
            return Refit(first.layer, 0.0, 0.0, applied=False)
        x, y, now = self._rows(calls)
        if float((now - y).square().sum() / y.square().sum().clamp_min(1e-30)) < NEGLIGIBLE:
            return Refit(first.layer, 0.0, 0.0, applied=False)
        old = read_matrix(first)
        centred = first.bias is not None or first.layer in self.norms
        held = max(1, int(x.shape[1] * HELD_OUT))
        test = x[:, -held:], y[:, -held:]
        before = _error(old, *test, centred)
        candidates = self._candidates(first, old, x[:, :-held], y[:, :-held], centred)
        after, matrix = min(((_error(m, *test, centred), m) for m in candidates), key=lambda item: item[0])
        applied = after < before or not matrix.any()
        self._apply(first, matrix if applied else old, x, y, centred)
        for _, call in calls:
            assert call.rerun is not None
            call.output = call.rerun()
        return Refit(first.layer, before, min(before, after), applied)

    def _candidates(self, call: WeightCall, old: Tensor, x: Tensor, y: Tensor, centred: bool) -> Iterator[Tensor]:
        """The solution for every ridge; a depthwise convolution has one, the scale of every channel."""
        if call.depthwise:
            yield old * _scales(x @ old.transpose(1, 2), y, centred)[:, :, None]
            return
        kept = self._kept(call, old)
        if not any(map(len, kept)):
            yield torch.zeros_like(old)
            return
        fits = [_fit(x[g][:, kept[g]], y[g], centred) for g in range(len(old))]
        for ridge in RIDGES:
            matrix = torch.zeros_like(old)
            for g, fit in enumerate(fits):
                matrix[g][:, kept[g]] = fit(ridge).to(matrix.dtype)
            yield matrix

    def _rows(self, calls: Sequence[tuple[WeightCall, WeightCall]]) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the network in work, outputs of the dense one, and of the one in work before it is solved."""
        inputs = read_matrix(calls[0][1]).shape[2]
        rows = ROWS_OF_WIDE if inputs > WIDE else max(ROWS_PER_INPUT * inputs, FEWEST_ROWS)
        limit = -(-rows // len(calls))
        xs, ys, nows = [], [], []
        for number, (dense, other) in enumerate(calls):
            generator = torch.Generator().manual_seed(self.seed + number)
            state = generator.get_state()
            ys.append(read_outputs(dense, limit, generator))
            x, now = read_rows(other, limit, generator.set_state(state))
            xs.append(x)
            nows.append(now)
        return torch.cat(xs, 1), torch.cat(ys, 1), torch.cat(nows, 1)

    def _kept(self, call: WeightCall, matrix: Tensor) -> list[Tensor]:
        kept = torch.ones(len(matrix), matrix.shape[2], dtype=torch.bool)
        for cut, dropped in self.cuts[call.weight]:
            units = unit_columns(call, cut)
            for unit in dropped:
                for g, columns in units[unit]:
                    kept[g, columns] = False
        return [row.nonzero()[:, 0] for row in kept]

    def _apply(self, call: WeightCall, matrix: Tensor, x: Tensor, y: Tensor, centred: bool) -> None:
        write_matrix(call, matrix)
        if not centred:
            return
        shift = y.mean(1) - torch.einsum("gop,gp->go", matrix, x.mean(1))
        if call.bias is not None:
            bias = self.parameters[call.bias].detach()
            bias.copy_(shift.flatten())
        else:
            mean = self.model.get_submodule(self.norms[call.layer]).running_mean
            assert isinstance(mean, Tensor)
            mean.sub_(shift.flatten().to(mean.dtype))


def _fit(x: Tensor, y: Tensor, centred: bool) -> Callable[[float], Tensor]:
    """Least squares of one convolution group; the result maps a ridge to (outputs, inputs).

    Solved in the space of the rows where there are fewer of them than inputs.
    """
    if centred:
        x, y = x - x.mean(0), y - y.mean(0)
    dual = len(x) < x.shape[1]
    gram = (x @ x.t() if dual else x.t() @ x).double()
    scale = float(x.square().sum(dtype=torch.float64) / x.shape[1]) or 1.0
    right = y.double() if dual else (x.t() @ y).double()

    def solve(ridge: float) -> Tensor:
        solution = torch.cholesky_solve(right, factor(gram, ridge * scale))
        return solution.t() @ x.double() if dual else solution.t()

    return solve


def _scales(own: Tensor, y: Tensor, centred: bool) -> Tensor:
    """What brings each output closest to that of the dense network, (groups, outputs); 1 where there is none."""
    if centred:
        own, y = own - own.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    power = own.square().sum(1)
    return torch.where(power > 0, (own * y).sum(1) / power.clamp_min(1e-30), torch.ones_like(power))


def _error(matrix: Tensor, x: Tensor, y: Tensor, centred: bool) -> float:
    wrong = y - x @ matrix.transpose(1, 2)
    reference = y
    if centred:
        wrong, reference = wrong - wrong.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return float(wrong.square().sum() / reference.square().sum().clamp_min(1e-30))
