"""Loss-greedy selection: what the fast way picks, and what it sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

from compressor.errors import InputError
from compressor.selection.base import Calibration
from compressor.selection.gate_loss import CHUNK, GateLoss
from compressor.selection.methods.greedy_forward import GreedyForward
from compressor.selection.methods.imitate_global import ImitateGlobal
from compressor.selection.recording import Recording
from compressor.structure import ChannelGroup, Plan, find_groups
from compressor.structure.surgery.mask import masked
from tests.networks import INPUT, NETWORKS, build
from tests.selection.test_contract import calibration

IMAGES = 2 * CHUNK


def loss_with(given: Calibration, group: ChannelGroup, kept: list[int]) -> float:
    """KL divergence from the dense network with some units only, the whole network being run."""
    images = torch.cat([batch[0] for batch in given.images])[:IMAGES]
    with torch.no_grad():
        target = given.model(images).log_softmax(1)
        with masked(given.model, Plan.of(given.groups, {group.name: kept})) as model:
            return float(kl_div(model(images).log_softmax(1), target, reduction="batchmean", log_target=True))


def plain(given: Calibration, group: ChannelGroup) -> list[int]:
    """Greedy forward selection as it is written down."""
    order: list[int] = []
    while len(order) < group.size:
        left = [u for u in range(group.size) if u not in order]
        if group.blocks:
            fill = [len(set(block) & set(order)) for block in group.blocks]
            behind = {u for b, n in zip(group.blocks, fill, strict=True) if n == min(fill) for u in b}
            left = [u for u in left if u in behind]
        order.append(min(left, key=lambda u: loss_with_uneven(given, group, [*order, u])))
    return order


def loss_with_uneven(given: Calibration, group: ChannelGroup, kept: list[int]) -> float:
    """Like `loss_with`, also while a grouped convolution is uneven on the way."""
    free = ChannelGroup(group.name, group.size, group.slices)
    return loss_with(Calibration(given.model, type(given.groups)((free,)), given.images), free, kept)


@pytest.mark.parametrize("kind", NETWORKS)
def test_picks_are_those_of_the_plain_algorithm(kind: str) -> None:
    given = calibration(kind)
    rankings = GreedyForward(images=IMAGES).rank(given)
    for group in given.groups:
        assert rankings[group.name].order == group.balanced(plain(given, group))


@pytest.mark.parametrize("candidates", ["all", "taylor"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_prices_are_the_losses_of_the_masked_network(kind: str, candidates: str) -> None:
    given = calibration(kind)
    rankings = GreedyForward(images=IMAGES, candidates=candidates, screen=2, refit=False).rank(given)
    for group in given.groups:
        order = rankings[group.name].order
        losses = [loss_with(given, group, list(order[:k])) for k in range(group.step, group.size + 1, group.step)]
        highest = [max(losses[i:]) for i in range(len(losses))]
        found = [rankings[group.name].error[k] for k in range(group.step, group.size + 1, group.step)]
        assert found == pytest.approx(highest, rel=1e-3, abs=1e-5)


class Attention(nn.Module):
    """Heads whose batch dimension is folded with the heads, and tokens with the images."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Conv2d(3, 8, 4, 4), nn.MultiheadAttention(8, 4, batch_first=True)
        self.first, self.second, self.head = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head((x + self.second(torch.relu(self.first(x)))).mean(1))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("kind", [*NETWORKS, "attention"])
def test_gates_do_what_masks_do(kind: str) -> None:
    torch.manual_seed(0)
    model = Attention().eval() if kind == "attention" else build(kind)
    groups = find_groups(model, torch.zeros(1, *INPUT))
    assert len(groups)
    batch = (torch.randn(CHUNK, *INPUT),)
    recording = Recording(model, groups.norms, batch)
    for group in groups:
        kept = sorted(
            group.balanced(torch.randperm(group.size).tolist())[: max(1, group.size // 2 // group.step) * group.step]
        )
        gate = torch.zeros(group.size)
        gate[kept] = 1
        with torch.no_grad(), masked(model, Plan.of(groups, {group.name: kept})):
            expected = model(*batch)
            found = recording.gated(group, batch).run(gate)[0]
            unit = torch.tensor(kept[:1])
            gate[unit] = 0
            mapped = recording.gated(group, batch).map(lambda outputs: outputs[0], gate, unit, 1.0)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mapped[0], expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_that_of_the_gates() -> None:
    given = calibration("residual")
    images = (torch.cat([batch[0] for batch in given.images]),)
    recording = Recording(given.model, given.groups.norms, tuple(t[:CHUNK] for t in images))
    target = given.model(*images).detach()
    with torch.no_grad():
        loss = GateLoss(recording, given.groups[0], images, target, given.task.divergences)
    gate, step = torch.full((given.groups[0].size,), 0.7), 1e-2
    with torch.no_grad():
        found = loss.gradient(gate, 1.0)
    for unit, row in enumerate(torch.eye(len(gate))):
        with torch.no_grad():
            slope = (loss.mean(gate + step * row) - loss.mean(gate - step * row)) / (2 * step) * loss.count
        assert float(found[unit]) == pytest.approx(slope, rel=0.05, abs=1e-3)


def test_taylor_with_all_units_on_the_screen_is_exact() -> None:
    given = calibration("plain")
    exact = GreedyForward(images=IMAGES).rank(given)
    screened = GreedyForward(images=IMAGES, candidates="taylor", screen=8).rank(given)
    assert {n: r.order for n, r in screened.items()} == {n: r.order for n, r in exact.items()}


def test_random_candidates_follow_the_seed() -> None:
    orders = {
        GreedyForward(images=CHUNK, candidates="random", screen=1).rank(calibration("plain", seed=s))["0.0"].order
        for s in (0, 0, 1)
    }
    assert len(orders) == 2


def test_scaled_weights_make_the_prices_of_a_few_units_other_ones() -> None:
    given = calibration("plain")
    bare, scaled = (GreedyForward(images=CHUNK, scale=scale).rank(given)["0.0"] for scale in ("none", "N/n"))
    assert bare.error[2] != scaled.error[2]
    assert scaled.error[-1] == 0


def test_cross_entropy_follows_the_labels() -> None:
    given = calibration("plain")
    first = GreedyForward(images=CHUNK, loss="cross_entropy").rank(given)
    assert given.labels is not None
    given.labels = [(labels + 1) % 4 for labels in given.labels]
    assert GreedyForward(images=CHUNK, loss="cross_entropy").rank(given) != first
    given.labels = None
    with pytest.raises(InputError, match="labels"):
        GreedyForward(images=CHUNK, loss="cross_entropy").rank(given)


@pytest.mark.parametrize(
    "options", [{"scale": "n"}, {"loss": "x"}, {"candidates": "x"}, {"repeat": True}, {"screen": 0}, {"images": 1}]
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        GreedyForward(**options)
    assert caught.value.where == "compress.options" and caught.value.cure


def test_too_few_images_are_refused() -> None:
    given = calibration("plain")
    given.images, given.labels = given.images[:1], None
    with pytest.raises(InputError, match="8 calibration images"):
        GreedyForward().rank(given)


class Branching(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def test_a_network_that_branches_on_its_values_is_refused() -> None:
    model = Branching(build("plain")).eval()
    with pytest.raises(InputError, match="recorded"):
        Recording(model, {}, (torch.randn(CHUNK, *INPUT),))


def test_global_imitation_may_use_a_unit_again() -> None:
    given = calibration("plain")
    assert ImitateGlobal(images=CHUNK).repeat
    assert ImitateGlobal(images=CHUNK).rank(given) != GreedyForward(images=CHUNK).rank(given)
