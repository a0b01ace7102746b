"""Refit: every consumer re-solved by least squares, so that it imitates the dense network with the units it has left.

Consumers are solved in the order of the data, each on what the already re-solved layers before it deliver, against what the
dense network computes from the same images (asymmetric target). A change of the mean output goes into the bias or into the
batch norm that follows. Needs no labels and no gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.lockstep import in_step
from compressor.structure.groups import Slice
from compressor.structure.linear import read_matrix, read_rows, unit_columns, write_matrix
from compressor.structure.mask import zero_columns
from compressor.structure.plan import Plan
from compressor.structure.watch import WeightCall

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
HELD_OUT = 0.2
ROWS_PER_INPUT, FEWEST_ROWS = 10, 16_384


@dataclass(frozen=True)
class Refit:
    """What the refit did to one consumer.

    Attributes:
        layer: The consumer.
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
    norms: dict[str, str],
    seed: int = 0,
    progress: Any = None,
) -> tuple[nn.Module, list[Refit]]:
    """Re-solve the consumers of all groups that the plan cuts.

    Args:
        model: The dense network; left untouched.
        plan: What is kept.
        images: Batches of calibration inputs. The last fifth of the rows is held out, to choose the ridge and to judge.
        norms: The batch norm that follows a layer (`Groups.norms`).
        seed: Draws the positions where a layer has more of them than are needed.
        progress: Called with (done, total) after every consumer.

    Returns:
        A network of the original widths in which the dropped units are no longer read, ready for `shrink`, and what was done.
    """
    fitted = copy.deepcopy(model)
    cuts = _cuts(fitted, plan)
    solver = _Solver(fitted, cuts, norms, seed)
    done: list[Refit] = []
    for calls in in_step(model, fitted, images, set(cuts)):
        done.append(solver.solve(calls))
        if progress is not None:
            progress(len(done), len(cuts))
    return fitted, done


def _cuts(model: nn.Module, plan: Plan) -> dict[str, list[tuple[Slice, tuple[int, ...]]]]:
    """The consumers that lose inputs, in which those inputs are zeroed here."""
    tensors = dict(model.named_parameters())
    cuts: dict[str, list[tuple[Slice, tuple[int, ...]]]] = {}
    for planned in plan.groups:
        for s in planned.group.slices:
            if s.role == "consumer" and planned.dropped:
                cuts.setdefault(s.tensor, []).append((s, planned.dropped))
                zero_columns(tensors[s.tensor].detach(), s, planned.dropped)
    return cuts


class _Solver:
    def __init__(
        self, model: nn.Module, cuts: dict[str, list[tuple[Slice, tuple[int, ...]]]], norms: dict[str, str], seed: int
    ) -> None:
        self.model, self.cuts, self.norms, self.seed = model, cuts, norms, seed
        self.parameters = dict(model.named_parameters())
        self.solved: set[str] = set()

    def solve(self, calls: Sequence[tuple[WeightCall, WeightCall]]) -> Refit:
        """Solve one consumer from the calls of all batches, and let the network go on with the result."""
        first = calls[0][1]
        if first.weight in self.solved:
            return Refit(first.layer, 0.0, 0.0, applied=False)
        self.solved.add(first.weight)
        x, y = self._rows(calls)
        old = read_matrix(first).double()
        kept = self._kept(first, old)
        centred = first.bias is not None or first.layer in self.norms
        held = max(1, int(x.shape[1] * HELD_OUT))
        fits = [_fit(x[g, :-held], y[g, :-held], kept[g], centred) for g in range(len(old))]
        before = _error(old, x[:, -held:], y[:, -held:], centred)
        tried = [
            (_error(matrix, x[:, -held:], y[:, -held:], centred), matrix)
            for matrix in (torch.stack([_spread(f(r), kept[g], old[g]) for g, f in enumerate(fits)]) for r in RIDGES)
        ]
        after, matrix = min(tried, key=lambda item: item[0])
        applied = after < before
        self._apply(first, matrix if applied else old, x, y, centred)
        for _, call in calls:
            assert call.rerun is not None
            call.output = call.rerun()
        return Refit(first.layer, before, after if applied else before, applied)

    def _rows(self, calls: Sequence[tuple[WeightCall, WeightCall]]) -> tuple[Tensor, Tensor]:
        inputs = read_matrix(calls[0][1]).shape[2]
        limit = -(-max(ROWS_PER_INPUT * inputs, FEWEST_ROWS) // len(calls))
        xs, ys = [], []
        for number, (dense, other) in enumerate(calls):
            generator = torch.Generator().manual_seed(self.seed + number)
            state = generator.get_state()
            ys.append(read_rows(dense, limit, generator)[1])
            xs.append(read_rows(other, limit, generator.set_state(state))[0])
        return torch.cat(xs, 1).double(), torch.cat(ys, 1).double()

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
        if call.bias is not None:
            bias = self.parameters[call.bias].detach()
            shift = y.mean(1) - torch.einsum("gop,gp->go", matrix, x.mean(1))
            bias.copy_(shift.flatten())
        else:
            mean = self.model.get_submodule(self.norms[call.layer]).running_mean
            assert isinstance(mean, Tensor)
            shift = y.mean(1) - torch.einsum("gop,gp->go", matrix, x.mean(1))
            mean.sub_(shift.flatten().to(mean.dtype))


def _fit(x: Tensor, y: Tensor, kept: Tensor, centred: bool) -> Any:
    """Normal equations of one convolution group; the result maps a ridge to (outputs, kept inputs)."""
    x = x[:, kept]
    if centred:
        x, y = x - x.mean(0), y - y.mean(0)
    gram, cross = x.t() @ x / len(x), x.t() @ y / len(x)
    scale = float(gram.diagonal().mean().clamp_min(1e-30))

    def solve(ridge: float) -> Tensor:
        inner = gram + ridge * scale * torch.eye(len(gram), dtype=gram.dtype)
        return torch.cholesky_solve(cross, torch.linalg.cholesky(inner)).t()

    return solve


def _spread(solution: Tensor, kept: Tensor, like: Tensor) -> Tensor:
    matrix = torch.zeros_like(like)
    matrix[:, kept] = solution
    return matrix


def _error(matrix: Tensor, x: Tensor, y: Tensor, centred: bool) -> float:
    wrong = y - x @ matrix.transpose(1, 2)
    reference = y
    if centred:
        wrong, reference = wrong - wrong.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return float(wrong.square().sum() / reference.square().sum().clamp_min(1e-30))
