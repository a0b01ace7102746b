"""Masks: the left side of equation 1, checked against hooks that know nothing of weights."""

from __future__ import annotations

import pytest
import torch

from compressor.errors import InputError
from compressor.structure import Plan, masked
from tests.structure.examined import distance, examined, plans, run, same, state, zeroed_inputs
from tests.structure.networks import CASES, build


@pytest.mark.parametrize("name", CASES)
def test_masking_weights_is_zeroing_inputs(name: str) -> None:
    known = examined(name)
    for plan in plans(known.groups):
        with zeroed_inputs(known.model, plan):
            expected = run(known.model, known.inputs)
        with masked(known.model, plan):
            assert distance(run(known.model, known.inputs), expected) < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_the_weights_come_back(name: str) -> None:
    known = examined(name)
    before = state(known.model)
    with masked(known.model, Plan.uniform(known.groups, 0.5)):
        pass
    assert state(known.model) == before


def test_the_weights_come_back_after_an_error() -> None:
    known = examined("residual")
    before = state(known.model)
    with pytest.raises(ZeroDivisionError), masked(known.model, Plan.uniform(known.groups, 0.5)):
        raise ZeroDivisionError
    assert state(known.model) == before


def test_a_mask_changes_the_output() -> None:
    known = examined("plain")
    with masked(known.model, Plan.uniform(known.groups, 0.5)) as model:
        assert distance(run(model, known.inputs), run(build("plain"), known.inputs)) > 1e-3


def test_a_full_plan_masks_nothing() -> None:
    known = examined("residual")
    dense = run(known.model, known.inputs)
    with masked(known.model, Plan.of(known.groups, {})):
        assert same(run(known.model, known.inputs), dense)


def test_masks_nest() -> None:
    known = examined("plain")
    plan = Plan.uniform(known.groups, 0.5)
    names = [g.name for g in known.groups]
    with masked(known.model, plan):
        expected = run(known.model, known.inputs)
    with masked(known.model, plan.without(names[:1])), masked(known.model, plan.without(names[1:])):
        assert same(run(known.model, known.inputs), expected)


def test_gradients_flow_to_the_kept_weights_only() -> None:
    known, model = examined("plain"), build("plain")
    with masked(model, Plan.of(known.groups, {"0.0": range(4)})):
        model(*known.inputs).sum().backward()
    gradient = model.get_parameter("0.0.weight").grad
    assert gradient is not None
    assert gradient[:4].abs().sum() > 0
    assert torch.equal(gradient[4:], torch.zeros_like(gradient[4:]))


def test_a_plan_of_another_network_is_refused() -> None:
    with pytest.raises(InputError), masked(build("plain"), Plan.uniform(examined("residual").groups, 0.5)):
        pass
