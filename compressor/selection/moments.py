"""Second moments of what the consumers of channel groups read, from one pass over the calibration images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from compressor.structure.groups import Slice
from compressor.structure.surgery.linear import draw_places, read_inputs, read_matrix, unit_columns
from compressor.structure.tracing.ops import Watch, WeightCall
from compressor.support import distributed
from compressor.support.batches import Batch, sizes_of
from compressor.support.footprint import fitting
from compressor.support.linalg import add_gram, factor, mirror, precision
from compressor.support.modules import evaluating

WIDE = 5_000
RIDGE, FEW_ROWS_RIDGE = 1e-4, 1e-2
"""Shares of the mean of the diagonal."""
ROWS_PER_INPUT, FEWEST_ROWS, ROWS_OF_WIDE = 1.5, 4_096, 2_048


@dataclass
class Moments:
    """Sums over rows of one consumer, for each of its convolution groups.

    Attributes:
        weight: The consumer as (groups, outputs, inputs), as it was in the dense network.
        gram: Sum of (x - origin) (x - origin)^T, (groups, inputs, inputs), complete once all rows are in; empty for a
            consumer with too many inputs, of which the rows are kept.
        total: Sum of x, (groups, inputs).
        rows: Number of rows summed up.
        call: What the consumer is, without what ran through it.
        scale: What an error of each output counts, (groups, outputs).
        origin: The mean of the first rows, (groups, inputs): what varies little about a large mean keeps its digits.
        wide: True where the rows are kept instead of `gram`.
        kept_rows: Those rows less the origin, or rows that wait to be added to `gram` in a larger block.
    """

    weight: Tensor
    gram: Tensor
    total: Tensor
    call: WeightCall
    scale: Tensor
    origin: Tensor
    rows: int = 0
    wide: bool = False
    kept_rows: list[Tensor] = field(default_factory=list)
    _inverses: dict[tuple[int, bool], tuple[Tensor, float]] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """Mean input, (groups, inputs)."""
        return self.total / self.rows

    @property
    def ridge(self) -> float:
        """Share of the mean of the diagonal that makes solving safe."""
        return RIDGE if self.rows >= 10 * self.weight.shape[2] else FEW_ROWS_RIDGE

    def add(self, x: Tensor) -> None:
        """Add rows of shape (groups, rows, inputs)."""
        if not self.rows:
            self.origin = x.mean(1)
        self.rows += x.shape[1]
        self.total += x.sum(1, dtype=torch.float64)
        self.kept_rows.append(x - self.origin[:, None])
        if not self.wide and sum(part.shape[1] for part in self.kept_rows) >= x.shape[2]:
            self.settle()

    def settle(self) -> None:
        """Put the rows that wait into one block; unless they are to be kept, add their products to `gram`."""
        if self.kept_rows:
            x = torch.cat(self.kept_rows, 1)
            self.kept_rows = [x] if self.wide else []
            if not self.wide:
                add_gram(self.gram, x)

    def second(self, group: int, index: Tensor, center: bool) -> Tensor:
        """The mean of x x^T, or the covariance, of some inputs of a consumer that is not wide."""
        if torch.equal(index, torch.arange(self.weight.shape[2])):
            sums = self.gram[group]
        else:
            sums = self.gram[group][index[:, None], index]
        mean = self.mean[group][index]
        away = (mean - self.origin[group][index]).to(sums.dtype)
        covariance = torch.addr(sums, away, away, beta=1 / self.rows, alpha=-1)
        return covariance if center else covariance.addr_(mean.to(sums.dtype), mean.to(sums.dtype))

    @property
    def power(self) -> Tensor:
        """Mean squared length of the inputs, (groups,)."""
        if self.wide:
            squares = self.kept_rows[0].double().square().sum((1, 2))
        else:
            squares = self.gram.diagonal(dim1=1, dim2=2).double().sum(1)
        away = self.mean - self.origin
        return squares / self.rows - away.square().sum(1) + self.mean.square().sum(1)

    def move(self, origin: Tensor) -> None:
        """Take another origin."""
        away = self.origin.double() - origin
        if self.wide:
            self.kept_rows = [rows + away[:, None].to(rows.dtype) for rows in self.kept_rows]
        else:
            sums = self.total - self.rows * self.origin
            for gram, a, s in zip(self.gram, away, sums, strict=True):
                gram += (torch.outer(a, s) + torch.outer(s, a) + self.rows * torch.outer(a, a)).to(gram.dtype)
        self.origin = origin

    def inverse(self, group: int, center: bool) -> tuple[Tensor, float]:
        """Inverse of the mean of x x^T (or of the covariance) with a ridge, in double precision, and that ridge."""
        if (group, center) not in self._inverses:
            matrix = self.second(group, torch.arange(self.weight.shape[2]), center).double()
            ridge = self.ridge * float(matrix.diagonal().mean().clamp_min(1e-30))
            self._inverses[group, center] = torch.cholesky_inverse(factor(matrix, ridge)), ridge
        return self._inverses[group, center]


def collect_moments(
    model: nn.Module,
    consumers: Iterable[str],
    images: Sequence[Batch],
    *,
    seed: int = 0,
    progress: Any = None,
) -> dict[str, Moments]:
    """Run the calibration images through the network once; several processes each take their part of the batches.

    Args:
        model: The dense network.
        consumers: Names of the weights to watch. A weight that is used several times sums over all its uses.
        images: Batches of inputs; those whose pass would take too much memory are cut into parts.
        seed: Draws the positions where a layer has more of them than are needed.
        progress: Called with (done, total) after every batch.
    """
    wanted = set(consumers)
    found: dict[str, Moments] = {}
    images = fitting(model, images)
    sizes = sizes_of(images)
    count = sum(sizes)
    generator = torch.Generator()
    together = len(images) >= distributed.count() > 1
    numbers = distributed.share(range(len(images))) if together else range(len(images))

    def visit(call: WeightCall) -> None:
        if call.weight not in wanted or call.input is None:
            return
        if call.weight not in found:
            found[call.weight] = _empty(call)
        moments = found[call.weight]
        inputs = moments.weight.shape[2]
        wanted_rows = ROWS_OF_WIDE if moments.wide else max(round(ROWS_PER_INPUT * inputs), FEWEST_ROWS)
        limit = -(-wanted_rows * batch_size // count)
        moments.add(read_inputs(call, draw_places(call, limit, generator)))

    with evaluating(model), Watch(model, visit):
        for number in numbers:
            generator.manual_seed(seed + number)
            batch_size = sizes[number]
            model(*images[number])
            if progress is not None:
                progress(number + 1, len(images))
    for moments in found.values():
        moments.settle()
        mirror(moments.gram)
    if together:
        _sum_over_ranks(found)
    return found


def _sum_over_ranks(found: dict[str, Moments]) -> None:
    for moments in found.values():
        moments.move(distributed.all_gather(moments.origin)[0])
        distributed.all_reduce_sum([moments.gram, moments.total])
        moments.rows = sum(distributed.all_gather(moments.rows))
        if moments.wide:
            moments.kept_rows = [rows for part in distributed.all_gather(moments.kept_rows) for rows in part]
            moments.settle()


def _empty(call: WeightCall) -> Moments:
    weight = read_matrix(call).double()
    groups, _, inputs = weight.shape
    wide = inputs > WIDE
    gram = torch.zeros(groups, *([0, 0] if wide else [inputs, inputs]), dtype=precision(inputs))
    total, scale = weight.new_zeros(groups, inputs), weight.new_ones(weight.shape[:2])
    return Moments(weight, gram, total, replace(call, input=None, output=None), scale, total.float(), wide=wide)


def bytes_of_moments(groups: int, outputs: int, inputs: int) -> int:
    """What the moments of a consumer take, with the rows that wait to be added."""
    weight = 8 * groups * outputs * inputs
    if inputs > WIDE:
        return weight + 4 * groups * inputs * ROWS_OF_WIDE
    return weight + groups * inputs**2 * (precision(inputs).itemsize + 4)


def columns_of(moments: Moments, cut: Slice) -> list[list[tuple[int, Tensor]]]:
    """For every unit of the slice, the convolution group and the columns that it owns."""
    return unit_columns(moments.call, cut)
