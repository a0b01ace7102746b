"""The smallest network within a rise of the loss."""

from __future__ import annotations

import pytest
import torch

from compressor.budget.costs.macs import Macs
from compressor.budget.search.loss import KLIncrease, smallest_within
from compressor.selection.base import Calibration
from compressor.selection.methods.imitation import Imitation
from compressor.structure import find_groups
from tests.networks import INPUT, build


@pytest.mark.parametrize("refitted", [False, True])
@pytest.mark.parametrize("limit", [0.001, 0.02])
def test_the_limit_holds_and_a_smaller_network_would_break_it(refitted: bool, limit: float) -> None:
    model = build("residual")
    torch.manual_seed(0)
    images = [(torch.randn(32, *INPUT),) for _ in range(4)]
    groups = find_groups(model, torch.zeros(2, *INPUT))
    rankings = Imitation().rank(Calibration(model, groups, images))
    cost, measure = (
        Macs(model, groups),
        KLIncrease(model, groups, rankings, images, mixing=1.0 if refitted else None, seed=0),
    )
    tried: list[tuple[float, float]] = []

    def noted(widths: dict[str, int]) -> float:
        tried.append((cost.total(widths), measure(widths)))
        return tried[-1][1]

    found = smallest_within(limit, groups, rankings, cost, noted, smallest=0.3)
    assert measure(found.widths) == found.rise <= limit
    assert all(rise > limit for macs, rise in tried if macs < cost.total(found.widths))


def test_a_limit_that_all_widths_hold_gives_the_narrowest() -> None:
    model = build("residual")
    groups = find_groups(model, torch.zeros(2, *INPUT))
    rankings = Imitation().rank(Calibration(model, groups, [(torch.randn(32, *INPUT),)]))
    cost = Macs(model, groups)
    narrow = cost.total({group.name: group.fewest for group in groups}) / cost.dense
    found = smallest_within(1.0, groups, rankings, cost, lambda widths: 0.0, smallest=narrow)
    assert found.share < narrow + 0.01


def test_the_loss_is_that_of_held_out_images() -> None:
    model = build("plain")
    groups = find_groups(model, torch.zeros(2, *INPUT))
    images = [(torch.randn(20, *INPUT),) for _ in range(2)]
    rankings = Imitation().rank(Calibration(model, groups, images))
    full = {group.name: group.size for group in groups}
    measure = KLIncrease(model, groups, rankings, images, mixing=None, seed=0)
    assert measure(full) == pytest.approx(0, abs=1e-6)
    assert sum(len(b[0]) for b in measure._held) == 10 and sum(len(b[0]) for b in measure._seen) == 30
