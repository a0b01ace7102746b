"""Learning gates: the course, its faults, and what survives an interruption."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.budget.allocate import Budget
from compressor.budget.costs.base import CostModel, Widths
from compressor.budget.costs.macs import Macs
from compressor.budget.costs.params import Params
from compressor.errors import InputError
from compressor.gates.base import Gate
from compressor.gates.course import Phases
from compressor.gates.settings import GateSettings, read_gate
from compressor.gates.trainer import Learnt, train_gates
from compressor.recipe import CompressSection, FinetuneSection
from compressor.structure import Groups, find_groups
from compressor.training.history import Progress
from tests.gates.test_contract import GATES, SETTINGS, learn, loader
from tests.networks import INPUT, build


@pytest.fixture
def network() -> tuple[nn.Module, Groups]:
    model = build("residual")
    return model, find_groups(model, torch.zeros(1, *INPUT))


def train(network: tuple[nn.Module, Groups], gate: str = "l0_hc", share: float = 0.6, **options: Any) -> Learnt:
    model, groups = network
    section = CompressSection.model_validate({"method": gate, "options": options, "target": {"macs": share}})
    make, settings = read_gate(section)
    training = FinetuneSection.model_validate({"epochs": 3, "lr": 0.01})
    return train_gates(model, groups, loader(), make, settings, Budget(Macs(model, groups), share), training)


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_the_phases_follow_each_other() -> None:
    phases = Phases.of(batches=10, epochs=2, warmup=0.1, harden=0.25)
    assert (phases.learn, phases.harden) == (2, 15)
    assert [phases.progress(step) for step in (0, 2, 15, 19)] == [0, 0, 1, 1]


def test_the_same_seed_learns_the_same(network: tuple[nn.Module, Groups]) -> None:
    first, second = train(network), train(network)
    assert first.rankings == second.rankings
    assert torch.equal(weights(first.model), weights(second.model))


@pytest.mark.parametrize("gate", GATES)
def test_an_interrupted_training_ends_as_an_undisturbed_one(
    gate: str, network: tuple[nn.Module, Groups], tmp_path: Path
) -> None:
    model, groups = network
    budget, path = Budget(Macs(model, groups), 0.6), tmp_path / "state.pt"
    settings = FinetuneSection.model_validate({"epochs": 3, "lr": 0.01})

    def interrupt(epoch: int, now: Progress) -> None:
        if now.epoch == epoch and now.step == 8 * epoch:
            raise KeyboardInterrupt

    def run(**more: Any) -> Learnt:
        return train_gates(model, groups, loader(), GATES[gate], GateSettings(), budget, settings, **more)

    expected = run()
    for epoch in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint=path, progress=partial(interrupt, epoch))
    resumed = run(checkpoint=path)
    assert resumed.rankings == expected.rankings
    assert resumed.movements == expected.movements
    assert torch.equal(weights(resumed.model), weights(expected.model))


def test_a_price_that_closes_everything_says_so(network: tuple[nn.Module, Groups]) -> None:
    with pytest.raises(InputError, match="the gates close 14 of 14 units(.|\n)*lower `lambda`"):
        train(network, **{"lambda": 1e6})


def test_a_price_that_closes_all_but_nothing_says_so(network: tuple[nn.Module, Groups]) -> None:
    def closing(sizes: Sequence[int]) -> Gate:
        gate = GATES["dsc"](sizes)
        gate.logits = lambda inputs: torch.where(torch.arange(sum(sizes)) < 1, 1.0, -1.0)  # type: ignore[method-assign]
        return gate

    with pytest.raises(InputError, match="close 13 of 14 units and leave 3%"):
        learn(*network, make=closing, share=0.99)


@pytest.mark.parametrize("gate", GATES)
def test_gates_learn_in_full_precision_where_the_network_does_not(gate: str, network: tuple[nn.Module, Groups]) -> None:
    model, groups = network
    budget, half = Budget(Macs(model, groups), 0.6), SETTINGS.model_copy(update={"precision": "bf16"})
    learnt = train_gates(model, groups, loader(), GATES[gate], GateSettings(), budget, half)
    assert budget.cost.total(budget.widths(groups, learnt.rankings)) <= 0.6 * budget.cost.dense


@pytest.mark.parametrize("scope", ["global", "group"])
def test_a_mild_target_closes_a_few_units_only(scope: str, network: tuple[nn.Module, Groups]) -> None:
    model, groups = network
    budget = Budget(Macs(model, groups), 0.95)
    make = partial(GATES["dsc"], scope=scope)  # type: ignore[call-arg]
    learnt = train_gates(model, groups, loader(), make, GateSettings(), budget, SETTINGS)
    assert 0 < sum(learnt.movements[-1].thresholded.values()) < sum(group.size for group in groups)


def test_without_hardening_the_rest_is_folded(network: tuple[nn.Module, Groups]) -> None:
    learnt = train(network, harden=0)
    assert learnt.movements[-1].epoch == 3


def test_the_unit_of_the_budget_decides_what_is_dear(network: tuple[nn.Module, Groups]) -> None:
    model, groups = network
    settings = FinetuneSection.model_validate({"epochs": 3, "lr": 0.01})
    for cost in (Macs(model, groups), Params(model, groups)):
        budget = Budget(cost, 0.5)
        learnt = train_gates(model, groups, loader(), GATES["l0_hc"], GateSettings(), budget, settings)
        assert cost.total(budget.widths(groups, learnt.rankings)) <= 0.5 * cost.dense


class Blocks(CostModel):
    """A device that computes four units at a time."""

    name = "blocks"

    def __init__(self, groups: Groups) -> None:
        self.sizes = {group.name: group.size for group in groups}

    def total(self, widths: Widths) -> float:
        return 1.0 + sum(-(-widths.get(name, size) // 4) for name, size in self.sizes.items())


def test_any_cost_model_will_do(network: tuple[nn.Module, Groups]) -> None:
    model, groups = network
    budget, settings = Budget(Blocks(groups), 0.8), FinetuneSection.model_validate({"epochs": 3, "lr": 0.01})
    learnt = train_gates(model, groups, loader(), GATES["l0_hc"], GateSettings(), budget, settings)
    assert budget.cost.total(budget.widths(groups, learnt.rankings)) <= 0.8 * budget.cost.dense


FAULTS = [
    ({"ordre": "backward"}, "ordre(.|\n)*order"),
    ({"order": "sideways"}, "'forward' or 'backward'"),
    ({"lambda": -1}, "compress.options.lambda"),
    ({"warmup": 0.9}, "compress.options.warmup"),
    ({"warmup": 0.49, "harden": 0.49}, "so that the gates can learn"),
    ({"residual": "perhaps"}, "compress.options.residual: (.|\n)*the default is False"),
    ({"price": 3}, "compress.options.price"),
]


@pytest.mark.parametrize(("options", "message"), FAULTS)
def test_faulty_options_are_named(options: dict[str, Any], message: str) -> None:
    section = CompressSection.model_validate({"method": "dep_l0", "options": options, "target": {"macs": 0.5}})
    with pytest.raises(InputError, match=message):
        read_gate(section)


def test_a_gate_without_penalty_has_no_price() -> None:
    section = CompressSection.model_validate({"method": "dsc", "options": {"lambda": 1.0}, "target": {"macs": 0.5}})
    with pytest.raises(InputError, match="no penalty"):
        read_gate(section)


def test_the_history_is_that_of_the_training(network: tuple[nn.Module, Groups]) -> None:
    learnt = learn(*network, make=GATES["ste"])
    assert [epoch.epoch for epoch in learnt.history] == [1, 2, 3, 4]
