"""Refit: every layer re-solved by least squares, so that it imitates the dense network with the inputs it has left.

Layers are solved in the order of the data, each on what the already re-solved layers before it deliver, against what
the dense network computes from the same images (asymmetric target). So a layer that lost no inputs still makes up for
what the layers before it got wrong; a depthwise convolution does so by a scale and a shift per channel. A change of the
mean output goes into the bias or into the batch norm that follows. Needs no labels and no gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from compressor.refit.paired import Calls, in_step
from compressor.structure.groups import Groups, Slice
from compressor.structure.plan import Plan
from compressor.structure.surgery.linear import (
    Places,
    draw_places,
    read_inputs,
    read_matrix,
    read_outputs,
    rows_at,
    unit_columns,
    write_matrix,
)
from compressor.structure.surgery.mask import zero_columns
from compressor.structure.surgery.norms import kept_norms
from compressor.structure.surgery.silence import silence
from compressor.structure.tensors import duplicate
from compressor.structure.tracing.ops import WeightCall
from compressor.support.allocator import pool, trim
from compressor.support.batches import Batch, sizes_of
from compressor.support.linalg import factor, gram

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
HELD_OUT = 0.2
FEWEST = 10
"""Rows and images from which a layer is solved; of fewer, those that are held out cannot judge."""
LARGE_BYTES = 2**26
"""Outputs of a layer from which on freed memory is given back at once; that takes time."""
ROW_BYTES = 2**28
"""Inputs of a layer for which it is solved: more rows are only taken where its inputs need them."""
NEGLIGIBLE = 1e-6
WIDE = 5_000
ROWS_PER_INPUT, ROWS_PER_IMAGE, FEWEST_ROWS, ROWS_OF_WIDE = 4, 16, 8_192, 2_048

Cuts = dict[str, list[tuple[Slice, tuple[int, ...]]]]


@dataclass(frozen=True)
class Refit:
    """What the refit did to one layer.

    Attributes:
        layer: The layer.
        before, after: Mean squared error of its output on held-out rows, relative to the output's variance, with the
            dense weights and with the new ones.
        applied: False where nothing was better; weights and bias stay.
        seen: The error with the new weights on the rows that they were solved from. That `after` is larger is what the
            choice of rows costs.
        share: Share of the layer's positions, on all images, that the rows are.
    """

    layer: str
    before: float
    after: float
    applied: bool
    seen: float = 0.0
    share: float = 1.0


def refit(
    model: nn.Module,
    plan: Plan,
    images: Sequence[Batch],
    *,
    groups: Groups,
    mixing: float = 1.0,
    seed: int = 0,
    progress: Any = None,
) -> tuple[nn.Module, list[Refit]]:
    """Re-solve all layers of a network that loses the units that the plan drops.

    Args:
        model: The dense network; left untouched.
        plan: What is kept.
        images: Batches of calibration inputs. The last fifth of the rows is held out, to choose the ridge and to judge.
        groups: What `find_groups` says of the network. Layers that run more than once are left alone.
        mixing: Share of the dense outputs in the target of every layer; the rest is what the dense layer makes
            of the inputs that it gets now. Below 1, layers make up for less of what those before them got wrong.
        seed: Draws the positions where a layer has more of them than are needed.
        progress: Called with (done, total) after every layer.

    Returns:
        A network of the original widths in which the dropped units are no longer read, ready for `shrink`, and what was
        done.
    """
    fitted = duplicate(model)
    cuts = _cuts(fitted, plan)
    images_read = sum(sizes_of(images))
    if images_read >= FEWEST:
        for weight in silence(fitted, plan, groups):
            del cuts[weight]
    solver = _Solver(fitted, cuts, groups, images_read, mixing, seed)
    done: list[Refit] = []
    pool()
    trim()
    for calls in in_step(model, fitted, images, set(cuts), partial(kept_norms, fitted, plan)):
        done.append(solver.solve(calls))
        large = sum(dense.output.nbytes for dense, _ in calls if dense.output is not None) > LARGE_BYTES
        del calls
        if large:
            trim()
        if progress is not None:
            progress(len(done), len(cuts))
    trim()
    return fitted, done


def summary(done: Sequence[Refit]) -> str:
    """What was solved again, from how much, and how well that holds where it was not looked at."""
    solved = [entry for entry in done if entry.applied]
    line = f"refit: {len(solved)} of {len(done)} layers solved again"
    if not solved:
        return line
    share, seen, after = (median(getattr(entry, name) for entry in solved) for name in ("share", "seen", "after"))
    return f"{line}, from {share:.0%} of their positions; median error {seen:.3g} there, {after:.3g} on others"


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
    def __init__(self, model: nn.Module, cuts: Cuts, groups: Groups, images: int, mixing: float, seed: int) -> None:
        self.model, self.cuts, self.norms = model, cuts, groups.norms
        self.images, self.mixing, self.seed = images, mixing, seed
        self.parameters = dict(model.named_parameters())
        self.repeated = groups.repeated

    def solve(self, calls: Calls) -> Refit:
        """Solve one layer from the calls of all batches: of the dense network finished, of the other begun."""
        first = calls[0][1]
        if first.weight in self.repeated or first.input is None or self.images < FEWEST:
            return Refit(first.layer, 0.0, 0.0, applied=False)
        whole = read_matrix(first)
        mask = self._kept(first, whole)
        read = mask.any(0).nonzero()[:, 0]
        if first.depthwise:  # its outputs are only scaled: they stand for the inputs, and scales for the matrix
            read = torch.arange(whole.shape[1])
            old, kept = _identities(whole), list[Tensor]()
        else:
            old, kept = whole[:, :, read], [row[read].nonzero()[:, 0] for row in mask]
        x, y = self._rows(calls, read)
        now = x @ old.transpose(1, 2) + self._bias(first, old)
        same = float((now - y).square().sum() / y.square().sum().clamp_min(1e-30)) < NEGLIGIBLE
        if same or x.shape[1] < FEWEST:
            return Refit(first.layer, 0.0, 0.0, applied=False)
        centred = first.bias is not None or first.layer in self.norms
        held = max(1, int(x.shape[1] * HELD_OUT))
        judge = _Judge(x, y, held, centred)
        before = judge.error(now)
        after, matrix = judge.best([iter([old]), self._candidates(first, old, kept, *judge.seen, centred)])
        if after >= before:
            return Refit(first.layer, before, before, applied=False)
        write_matrix(first, matrix @ whole if first.depthwise else torch.zeros_like(whole).index_copy_(2, read, matrix))
        if centred:
            self._shift(first, _shift(matrix, x, y).flatten())
        share = x.shape[1] / self._positions(calls, whole)
        return Refit(first.layer, before, after, True, judge.error_seen(matrix), share)

    def _candidates(
        self, call: WeightCall, old: Tensor, kept: Sequence[Tensor], x: Tensor, y: Tensor, centred: bool
    ) -> Iterator[Tensor]:
        """The solution for every ridge; a depthwise convolution has one, the scale of every channel."""
        if call.depthwise:
            yield torch.diag_embed(_scales(x, y, centred))
            return
        if not any(map(len, kept)):
            yield torch.zeros_like(old)
            return
        fits = [_fit(x[g][:, columns], y[g], centred) for g, columns in enumerate(kept)]
        for ridge in RIDGES:
            matrix = torch.zeros_like(old)
            for g, fit in enumerate(fits):
                matrix[g][:, kept[g]] = fit(ridge).to(matrix.dtype)
            yield matrix

    def _rows(self, calls: Calls, read: Tensor) -> tuple[Tensor, Tensor]:
        """Some inputs of the network in work, and what is to be made of them: the dense outputs, at the same places."""
        matrix = read_matrix(calls[0][1])
        limit = -(-rows_wanted(len(matrix), len(read), self.images) // len(calls))
        drawn = [
            draw_places(dense, limit, torch.Generator().manual_seed(self.seed + number))
            for number, (dense, _) in enumerate(calls)
        ]
        ends = [0, *accumulate(rows_at(dense, places) for (dense, _), places in zip(calls, drawn, strict=True))]
        xs, ys = (matrix.new_empty(len(matrix), ends[-1], size) for size in (len(read), matrix.shape[1]))
        for (dense, other), places, (start, end) in zip(calls, drawn, pairwise(ends), strict=True):
            x, y = (_own_outputs if other.depthwise else read_inputs)(other, places), read_outputs(dense, places)
            if self.mixing < 1:
                matrix = _identities(matrix) if other.depthwise else read_matrix(dense)
                y = torch.lerp(x @ matrix.transpose(1, 2) + self._bias(dense, matrix), y, self.mixing)
            xs[:, start:end], ys[:, start:end] = x.index_select(2, read), y
        return xs, ys

    def _positions(self, calls: Calls, matrix: Tensor) -> float:
        """Number of positions of the layer on all images, also those that have not come to it."""
        outputs = sum(dense.output.numel() for dense, _ in calls if dense.output is not None)
        return outputs / matrix[:, :, 0].numel() * self.images / calls.images

    def _kept(self, call: WeightCall, matrix: Tensor) -> Tensor:
        """Which inputs are left, (groups, inputs)."""
        kept = torch.ones(len(matrix), matrix.shape[2], dtype=torch.bool)
        for cut, dropped in self.cuts[call.weight]:
            units = unit_columns(call, cut)
            for unit in dropped:
                for g, columns in units[unit]:
                    kept[g, columns] = False
        return kept

    def _bias(self, call: WeightCall, matrix: Tensor) -> Tensor:
        """What the layer adds to its outputs, (groups, 1, outputs)."""
        if call.bias is None:
            return matrix.new_zeros(1)
        return self.parameters[call.bias].detach().reshape(len(matrix), 1, -1)

    def _shift(self, call: WeightCall, mean: Tensor) -> None:
        """Let the mean output be that of the dense network: `mean` is what the weight leaves to be added."""
        if call.bias is not None:
            bias = self.parameters[call.bias].detach()
            bias.copy_(mean)
        else:
            running = self.model.get_submodule(self.norms[call.layer]).running_mean
            assert isinstance(running, Tensor)
            running.sub_(mean.to(running.dtype))


class _Judge:
    """Judges matrices, each with the shift that the rows it was solved from ask for, by rows that are held out.

    Args:
        x, y: Inputs (groups, rows, inputs) and wanted outputs (groups, rows, outputs).
        held: Number of rows at the end that are held out.
        centred: Whether the layer can shift its outputs.
    """

    def __init__(self, x: Tensor, y: Tensor, held: int, centred: bool) -> None:
        self.seen, self.others = (x[:, :-held], y[:, :-held]), (x[:, -held:], y[:, -held:])
        self.held, self.centred = held, centred

    def error(self, outputs: Tensor) -> float:
        """Of outputs for all rows, on those that are held out."""
        return _error(outputs[:, -self.held :], self.others[1], self.centred)

    def error_seen(self, matrix: Tensor) -> float:
        """On the rows that the matrix was solved from."""
        return self._error(matrix, *self.seen)

    def best(self, series: Iterable[Iterator[Tensor]]) -> tuple[float, Tensor]:
        """The lowest error, and the matrix that has it; each series ends where the error rises."""
        return min((self._last_fall(matrices) for matrices in series), key=lambda found: found[0])

    def _last_fall(self, matrices: Iterator[Tensor]) -> tuple[float, Tensor]:
        best = next(matrices)
        lowest = self._error(best, *self.others)
        for matrix in matrices:
            error = self._error(matrix, *self.others)
            if error > lowest:
                break
            lowest, best = error, matrix
        return lowest, best

    def _error(self, matrix: Tensor, x: Tensor, y: Tensor) -> float:
        outputs = x @ matrix.transpose(1, 2)
        return _error(outputs + _shift(matrix, *self.seen)[:, None] if self.centred else outputs, y, self.centred)


def rows_wanted(groups: int, inputs: int, images: int) -> int:
    """How many rows a layer with some inputs in each of its convolution groups is solved from."""
    if inputs > WIDE:
        return ROWS_OF_WIDE
    needed = max(ROWS_PER_INPUT * inputs, FEWEST_ROWS)
    return max(needed, min(ROWS_PER_IMAGE * images, ROW_BYTES // max(1, 4 * groups * inputs)))


def _own_outputs(call: WeightCall, places: Places) -> Tensor:
    """What a convolution that has not run yet will deliver, without its bias, as rows."""
    assert call.input is not None
    stride, padding, dilation, transposed, more = call.settings
    weight = call.operand.detach()
    output = torch.convolution(call.input, weight, None, stride, padding, dilation, transposed, more, call.groups)
    return read_outputs(replace(call, output=output), places)


def _identities(matrix: Tensor) -> Tensor:
    """A matrix for each convolution group that leaves its outputs as they are, (groups, outputs, outputs)."""
    return torch.eye(matrix.shape[1]).to(matrix).expand(len(matrix), -1, -1)


def _shift(matrix: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """What the outputs of a matrix lack on average, (groups, outputs)."""
    return y.mean(1) - torch.einsum("gop,gp->go", matrix, x.mean(1))


def _fit(x: Tensor, y: Tensor, centred: bool) -> Callable[[float], Tensor]:
    """Least squares of one convolution group; the result maps a ridge to (outputs, inputs). `x` is changed.

    Solved in the space of the rows where there are fewer of them than inputs.
    """
    if centred:
        x, y = x.sub_(x.mean(0)), y - y.mean(0)
    dual = len(x) < x.shape[1]
    products = gram(x.t() if dual else x)
    scale = float(products.diagonal().sum(dtype=torch.float64) / x.shape[1]) or 1.0
    right = (y if dual else x.t() @ y).to(products.dtype)
    rows = x if dual else None

    def solve(ridge: float) -> Tensor:
        solution = torch.cholesky_solve(right, factor(products, ridge * scale))
        return solution.t() if rows is None else solution.t() @ rows.to(solution.dtype)

    return solve


def _scales(own: Tensor, y: Tensor, centred: bool) -> Tensor:
    """What brings each output closest to that of the dense network, (groups, outputs); 1 where there is none."""
    if centred:
        own, y = own - own.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    power = own.square().sum(1)
    return torch.where(power > 0, (own * y).sum(1) / power.clamp_min(1e-30), torch.ones_like(power))


def _error(own: Tensor, y: Tensor, centred: bool) -> float:
    """Mean squared error of outputs, relative to those of the dense network; to their variance where `centred`."""
    reference = y - y.mean(1, keepdim=True) if centred else y
    return float((y - own).square().sum() / reference.square().sum().clamp_min(1e-30))
