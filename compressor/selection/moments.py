"""Second moments of what the consumers of channel groups read, from one pass over the calibration images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from compressor import ranks
from compressor.structure.groups import Slice
from compressor.structure.linear import read_matrix, read_rows, unit_columns
from compressor.structure.watch import Watch, WeightCall, evaluating

WIDE = 5_000
ROWS_PER_INPUT, FEWEST_ROWS, ROWS_OF_WIDE = 4, 8_192, 2_048


@dataclass
class Moments:
    """Sums over rows of one consumer, for each of its convolution groups.

    Attributes:
        weight: The consumer as (groups, outputs, inputs), as it was in the dense network.
        gram: Sum of x x^T, (groups, inputs, inputs); empty for a consumer with too many inputs, of which the rows are
            kept.
        total: Sum of x, (groups, inputs).
        rows: Number of rows summed up.
        call: What the consumer is, without what ran through it.
        wide: True where the rows are kept instead of `gram`.
        kept_rows: Those rows, or rows that wait to be added to `gram` in a larger block.
    """

    weight: Tensor
    gram: Tensor
    total: Tensor
    call: WeightCall
    rows: int = 0
    wide: bool = False
    kept_rows: list[Tensor] = field(default_factory=list)

    @property
    def mean(self) -> Tensor:
        """Mean input, (groups, inputs)."""
        return self.total / self.rows

    def add(self, x: Tensor) -> None:
        """Add rows of shape (groups, rows, inputs)."""
        self.rows += x.shape[1]
        self.total += x.sum(1, dtype=torch.float64)
        self.kept_rows.append(x)
        if not self.wide and sum(part.shape[1] for part in self.kept_rows) >= x.shape[2]:
            self.settle()

    def settle(self) -> None:
        """Put the rows that wait into one block; unless they are to be kept, add their products to `gram`."""
        if self.kept_rows:
            x = torch.cat(self.kept_rows, 1)
            self.kept_rows = [x] if self.wide else []
            if not self.wide:
                self.gram += x.transpose(1, 2) @ x

    def columns(self, group: int, index: Tensor, center: bool) -> Tensor:
        """Columns of the mean of x x^T, or of the covariance."""
        if self.wide:
            x = self.kept_rows[0][group].double()
            result = x.t() @ x[:, index] / self.rows
        else:
            result = self.gram[group][:, index] / self.rows
        return result - torch.outer(self.mean[group], self.mean[group][index]) if center else result


def collect_moments(
    model: nn.Module,
    consumers: Iterable[str],
    images: Sequence[tuple[Any, ...]],
    *,
    seed: int = 0,
    progress: Any = None,
) -> dict[str, Moments]:
    """Run the calibration images through the network once; several processes each take their part of the batches.

    Args:
        model: The dense network.
        consumers: Names of the weights to watch. A weight that is used several times sums over all its uses.
        images: Batches of inputs.
        seed: Draws the positions where a layer has more of them than are needed.
        progress: Called with (done, total) after every batch.
    """
    wanted = set(consumers)
    found: dict[str, Moments] = {}
    count = sum(batch[0].shape[0] for batch in images)
    generator = torch.Generator()
    together = len(images) >= ranks.count() > 1
    numbers = ranks.share(range(len(images))) if together else range(len(images))

    def visit(call: WeightCall) -> None:
        if call.weight not in wanted or call.input is None:
            return
        if call.weight not in found:
            found[call.weight] = _empty(call)
        moments = found[call.weight]
        inputs = moments.weight.shape[2]
        wanted_rows = ROWS_OF_WIDE if moments.wide else max(ROWS_PER_INPUT * inputs, FEWEST_ROWS)
        limit = -(-wanted_rows * batch_size // count)
        moments.add(read_rows(call, limit, generator)[0])

    with evaluating(model), Watch(model, visit):
        for number in numbers:
            generator.manual_seed(seed + number)
            batch_size = images[number][0].shape[0]
            model(*images[number])
            if progress is not None:
                progress(number + 1, len(images))
    for moments in found.values():
        moments.settle()
    if together:
        _sum_over_ranks(found)
    return found


def _sum_over_ranks(found: dict[str, Moments]) -> None:
    for moments in found.values():
        ranks.all_reduce_sum([moments.gram, moments.total])
        moments.rows = sum(ranks.all_gather(moments.rows))
        if moments.wide:
            moments.kept_rows = [rows for part in ranks.all_gather(moments.kept_rows) for rows in part]
            moments.settle()


def _empty(call: WeightCall) -> Moments:
    weight = read_matrix(call).double()
    groups, _, inputs = weight.shape
    wide = inputs > WIDE
    gram = weight.new_zeros(0) if wide else weight.new_zeros(groups, inputs, inputs)
    return Moments(
        weight, gram, weight.new_zeros(groups, inputs), replace(call, input=None, output=None, rerun=None), wide=wide
    )


def columns_of(moments: Moments, cut: Slice) -> list[list[tuple[int, Tensor]]]:
    """For every unit of the slice, the convolution group and the columns that it owns."""
    return unit_columns(moments.call, cut)
