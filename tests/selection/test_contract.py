"""What every selection method must do, on every kind of network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compressor.budget.allocate import allocate
from compressor.budget.costs.macs import Macs
from compressor.selection.base import Calibration, Method, Ranking
from compressor.structure import Groups, find_groups
from compressor.support.plugins import discover
from tests.networks import CLASSES, INPUT, NETWORKS, build

METHODS = discover("compressor.selection.methods", Method)


def calibration(kind: str, **options: Any) -> Calibration:
    model = build(kind)
    torch.manual_seed(1)
    images = [(torch.randn(8, *INPUT),) for _ in range(4)]
    labels = [torch.randint(CLASSES, (8,)) for _ in images]
    return Calibration(model, find_groups(model, torch.zeros(1, *INPUT)), images, labels, **options)


def state(model: nn.Module) -> list[tuple[str, Any]]:
    tensors = [(name, value.clone()) for name, value in model.state_dict().items()]
    flags = [(name, module.training) for name, module in model.named_modules()]
    wanted = [(name, p.requires_grad) for name, p in model.named_parameters()]
    hooks = [(name, len(m._forward_hooks) + len(m._forward_pre_hooks)) for name, m in model.named_modules()]
    return [*tensors, *flags, *wanted, *hooks]


Case = tuple[Method, Groups, dict[str, Ranking]]


@pytest.fixture(scope="module", params=NETWORKS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=METHODS)
def case(request: pytest.FixtureRequest, kind: str) -> Case:
    method, given = METHODS[request.param](), calibration(kind)
    return method, given.groups, method.rank(given)


def test_every_group_is_ranked(case: Case) -> None:
    _, groups, rankings = case
    assert set(rankings) == set(groups.by_name())


def test_orders_are_permutations(case: Case) -> None:
    _, groups, rankings = case
    for group in groups:
        assert sorted(rankings[group.name].order) == list(range(group.size))


def test_errors_never_rise_and_end_at_zero(case: Case) -> None:
    _, groups, rankings = case
    for group in groups:
        error = rankings[group.name].error
        assert len(error) == group.size + 1
        assert all(narrow >= wide for narrow, wide in zip(error, error[1:], strict=False))
        assert error[-1] == 0 and torch.tensor(error).isfinite().all()


def test_prefixes_are_balanced_over_the_blocks(case: Case) -> None:
    _, groups, rankings = case
    for group in groups:
        for width in range(group.step, group.size + 1, group.step):
            prefix = set(rankings[group.name].order[:width])
            assert len({len(prefix & set(block)) for block in group.blocks}) <= 1


def test_an_allocator_can_use_the_prices(case: Case, kind: str) -> None:
    _, groups, rankings = case
    cost = Macs(build(kind), groups)
    assert cost.total(allocate(groups, rankings, cost, 0.7)) <= 0.7 * cost.dense


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_ranking(name: str) -> None:
    first, second = (METHODS[name]().rank(calibration("residual", seed=3)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", METHODS)
def test_the_model_is_left_as_it_was(name: str, kind: str) -> None:
    given = calibration(kind)
    before = state(given.model)
    METHODS[name]().rank(given)
    assert all(
        old[0] == new[0] and bool(torch.as_tensor(old[1] == new[1]).all())
        for old, new in zip(before, state(given.model), strict=True)
    )
    assert all(p.grad is None for p in given.model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_a_frozen_model_can_be_ranked(name: str) -> None:
    given = calibration("plain")
    expected = METHODS[name]().rank(given)
    given.model.requires_grad_(False)
    with torch.no_grad():
        assert METHODS[name]().rank(given) == expected


@pytest.mark.parametrize("name", METHODS)
def test_progress_ends_with_everything_done(name: str) -> None:
    seen: list[tuple[int, int]] = []
    METHODS[name]().rank(calibration("plain", progress=lambda done, total: seen.append((done, total))))
    assert seen == sorted(seen)
    assert not seen or seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.needs_labels])
def test_labels_are_not_needed_where_none_are_asked_for(name: str) -> None:
    given = calibration("plain")
    with_labels = METHODS[name]().rank(given)
    given.labels = None
    assert METHODS[name]().rank(given) == with_labels


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name: str) -> None:
    assert METHODS[name].summary and METHODS[name].paper
