"""What every gate must do, on every kind of network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compressor.budget.allocate import Budget
from compressor.budget.costs.macs import Macs
from compressor.gates.base import OPEN, Gate
from compressor.gates.budget import ExpectedCost
from compressor.gates.network import Gated
from compressor.gates.settings import GateSettings
from compressor.gates.trainer import Learnt, train_gates
from compressor.recipe import FinetuneSection
from compressor.structure import Groups, Plan, find_groups, shrink, verify
from compressor.structure.proof import difference
from compressor.support.plugins import discover
from tests.networks import CLASSES, INPUT, NETWORKS, build
from tests.structure.examined import EXACT
from tests.structure.test_properties import BRIEF, networks

GATES = discover("compressor.gates", Gate)
VARIANTS: dict[str, Callable[[list[int]], Gate]] = {
    **GATES,
    "dep_l0 backward": lambda sizes: GATES["dep_l0"](sizes, order="backward", residual=True),
    "gumbel without scale": lambda sizes: GATES["gumbel"](sizes, rescale=False),
    "dsc by group": lambda sizes: GATES["dsc"](sizes, scope="group"),
}
SIZES = [5, 3, 4]
IMAGES = (torch.randn(4, *INPUT, generator=torch.Generator().manual_seed(3)),)
SETTINGS = FinetuneSection.model_validate({"epochs": 4, "lr": 0.01, "distill_weight": 0.5})


@pytest.fixture(params=VARIANTS)
def make(request: pytest.FixtureRequest) -> Callable[[list[int]], Gate]:
    return VARIANTS[request.param]


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Groups]:
    model = build(request.param)
    return model, find_groups(model, torch.zeros(1, *INPUT))


def sizes_of(groups: Groups) -> list[int]:
    return [group.size for group in groups]


def spread(units: int) -> Tensor:
    """Logits from closed to open."""
    return torch.linspace(-3.5, 3.5, units)[torch.randperm(units, generator=torch.Generator().manual_seed(0))]


def loader(batches: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (torch.randn(8, *INPUT, generator=generator), torch.randint(CLASSES, (8,), generator=generator))
        for _ in range(batches)
    ]


def learn(model: nn.Module, groups: Groups, make: Callable[[list[int]], Gate], share: float = 0.6) -> Learnt:
    budget = Budget(Macs(model, groups), share)
    return train_gates(model, groups, loader(), make, GateSettings(), budget, SETTINGS)


def test_the_family_is_complete() -> None:
    assert set(GATES) == {"l0_hc", "dep_l0", "gumbel", "ste", "dsc", "gate_net"}
    assert all(gate.summary and gate.paper for gate in GATES.values())


def test_gates_of_a_pretrained_network_start_open(make: Callable[[list[int]], Gate]) -> None:
    model = build("plain")
    groups = find_groups(model, torch.zeros(1, *INPUT))
    gate = make(sizes_of(groups))
    gate.attach(model, groups, ExpectedCost(groups, Macs(model, groups)))
    logits = gate.logits(IMAGES)
    assert logits.shape == (sum(gate.sizes),)
    assert torch.equal(gate.value(logits), torch.ones(sum(gate.sizes)))
    assert float(gate.probability(logits).detach().mean()) > 0.98


def test_gates_start_with_the_logits_that_they_are_given(make: Callable[[list[int]], Gate]) -> None:
    model = build("plain")
    groups = find_groups(model, torch.zeros(1, *INPUT))
    gate, wanted = make(sizes_of(groups)), torch.linspace(1, OPEN + 1, sum(sizes_of(groups)))
    gate.attach(model, groups, ExpectedCost(groups, Macs(model, groups)))
    before = gate.logits(IMAGES).detach().clone()
    gate.start(wanted)
    after = gate.logits(IMAGES).detach()
    assert (after - before).sort().indices.tolist() == list(range(len(wanted)))


def test_probabilities_are_the_frequencies_of_open_samples(make: Callable[[list[int]], Gate]) -> None:
    torch.manual_seed(0)
    gate, logits, draws = make(SIZES), spread(sum(SIZES)), 4000
    open_samples = torch.stack([gate.sample(logits) > 0 for _ in range(draws)]).float().mean(0)
    probability = gate.probability(logits)
    error = 4 * (probability * (1 - probability) / draws).sqrt() + 1e-6
    assert ((open_samples - probability).abs() <= error).all()


def test_samples_and_values_lie_between_0_and_1(make: Callable[[list[int]], Gate]) -> None:
    gate, logits = make(SIZES), spread(sum(SIZES))
    for gates in (gate.sample(logits), gate.value(logits), gate.probability(logits)):
        assert ((gates >= 0) & (gates <= 1)).all()
    assert gate.value(logits).tolist() == [v for _, v in sorted(zip(*_by_logit(gate, logits), strict=True))]


def _by_logit(gate: Gate, logits: Tensor) -> tuple[list[int], list[float]]:
    """Places and values such that values rise with the logits."""
    order = logits.argsort()
    return order.tolist(), gate.value(logits)[order].sort().values.tolist()


def test_the_expected_cost_is_the_mean_cost_of_sampled_plans(
    make: Callable[[list[int]], Gate], network: tuple[nn.Module, Groups]
) -> None:
    torch.manual_seed(0)
    model, groups = network
    gate, cost = make(sizes_of(groups)), Macs(model, groups)
    logits, expected = spread(sum(gate.sizes)), ExpectedCost(groups, cost)
    sampled = []
    for _ in range(500):
        widths = expected.widths((gate.sample(logits) > 0).float()).tolist()
        sampled.append(cost.total({g.name: int(w) for g, w in zip(groups, widths, strict=True)}) / cost.dense)
    mean, error = torch.tensor(sampled).mean(), torch.tensor(sampled).std() / 500**0.5
    assert abs(float(expected(gate.probability(logits)) - mean)) <= 4 * float(error) + 1e-6


def test_folding_changes_no_output(make: Callable[[list[int]], Gate], network: tuple[nn.Module, Groups]) -> None:
    model, groups = network
    gate, gated = make(sizes_of(groups)), Gated(model, groups)
    gates = gate.scale(gate.value(spread(sum(gate.sizes)))).detach()
    with torch.no_grad():
        expected = gated.run(IMAGES, gates)
        gated.fold(gates)
        assert difference(expected, model(*IMAGES)) < 1e-5


def test_a_gate_is_a_factor_on_what_the_consumers_read() -> None:
    model = build("plain")
    groups, factors = find_groups(model, torch.zeros(1, *INPUT)), torch.linspace(0, 1, 14)
    seen: list[nn.Module] = [model[1], model[3]]
    hooks = [
        module.register_forward_pre_hook(lambda _, x, part=part: (x[0] * _spread_over(part, x[0]),))
        for module, part in zip(seen, factors.split([8, 6]), strict=True)
    ]
    with torch.no_grad():
        expected = model(*IMAGES)
        for hook in hooks:
            hook.remove()
        assert difference(expected, Gated(model, groups).run(IMAGES, factors)) < 1e-5


def _spread_over(factors: Tensor, x: Tensor) -> Tensor:
    return factors.repeat_interleave(x.shape[1] // len(factors)).view(-1, *[1] * (x.dim() - 2))


def test_what_is_learnt_is_a_plan_that_meets_the_target_exactly_masked(
    make: Callable[[list[int]], Gate], network: tuple[nn.Module, Groups]
) -> None:
    model, groups = network
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learnt, cost = learn(model, groups, make), Macs(model, groups)
    widths = Budget(cost, 0.6).widths(groups, learnt.rankings)
    plan = Plan.of(groups, {name: learnt.rankings[name].order[:width] for name, width in widths.items()})
    assert cost.total(widths) <= 0.6 * cost.dense
    assert verify(learnt.model, plan, IMAGES) < EXACT
    with torch.no_grad():  # the units that go are not read any more: the cut loses nothing
        assert difference(learnt.model.eval()(*IMAGES), shrink(learnt.model, plan).eval()(*IMAGES)) < 1e-4
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_movement_ends_at_the_plan(make: Callable[[list[int]], Gate]) -> None:
    model = build("residual")
    groups = find_groups(model, torch.zeros(1, *INPUT))
    learnt = learn(model, groups, make)
    widths = Budget(Macs(model, groups), 0.6).widths(groups, learnt.rankings)
    assert [movement.epoch for movement in learnt.movements] == [1, 2, 3, 4]
    assert learnt.movements[-1].thresholded == widths
    assert learnt.movements[-1].expected == pytest.approx(widths)
    assert set(learnt.movements[0].expected) == set(groups.by_name())


@pytest.mark.parametrize("name", GATES)
def test_every_network_of_the_property_tests_trains_a_step(name: str) -> None:
    @BRIEF
    @given(networks(), st.integers(0, 10_000))
    def one_step(drawn: tuple[Callable[[], nn.Module], Tensor], seed: int) -> None:
        make_model, x = drawn
        model = make_model()
        groups = find_groups(model, x)
        if not groups:
            return
        torch.manual_seed(seed)
        gate, expected = GATES[name](sizes_of(groups)), ExpectedCost(groups, Macs(model, groups))
        gate.attach(model, groups, expected)
        gated = Gated(model, groups)
        if not gate.steered:
            gate.meet(0.8)
        logits = gate.logits((x,))
        output = gated.run((x,), gate.scale(gate.sample(logits)))
        (output.square().mean() + expected(gate.probability(logits))).backward()
        learnt = [p for p in gate.parameters() if p.requires_grad]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in learnt)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())

    one_step()
