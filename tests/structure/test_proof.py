"""Equation 1, mask = shrink, on every network; and that the proof notices when it does not hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compressor.structure import ChannelGroup, Plan, shrink, verify
from compressor.structure.grouping.validation import faulty_groups
from tests.structure.examined import EXACT, distance, examined, plans, random_plan, run, state, zeroed_inputs
from tests.structure.networks import CASES, IMAGE, build, inputs_of


@pytest.mark.parametrize("name", CASES)
def test_mask_is_shrink(name: str) -> None:
    known = examined(name)
    assert max(verify(known.model, plan, known.inputs) for plan in plans(known.groups)) < EXACT


@pytest.mark.parametrize("name", CASES)
def test_zeroing_inputs_is_shrink(name: str) -> None:
    """The same by other means: hooks instead of masked weights, single precision, and no code of the proof."""
    known = examined(name)
    for plan in plans(known.groups):
        with zeroed_inputs(known.model, plan):
            expected = run(known.model, known.inputs)
        assert distance(run(shrink(known.model, plan), known.inputs), expected) < 1e-4


@pytest.mark.parametrize("name", ["residual", "denseconcat", "separate", "group_norm", "unet", "one_dimensional"])
def test_it_holds_for_other_weights_and_other_inputs(name: str) -> None:
    groups = examined(name).groups
    plan = random_plan(groups, 11)
    assert verify(build(name, seed=3), plan, inputs_of(name, seed=4)) < EXACT


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (3, 3, 13, 9), (2, 3, 32, 32)])
def test_it_holds_for_other_sizes_of_the_input(shape: tuple[int, ...]) -> None:
    known = examined("invertedresidual")
    assert verify(known.model, Plan.uniform(known.groups, 0.5), torch.randn(shape)) < EXACT


def test_the_model_is_left_as_it_was() -> None:
    model, known = build("residual").train(), examined("residual")
    before = state(model)
    verify(model, Plan.uniform(known.groups, 0.5), known.inputs)
    assert state(model) == before


def test_one_tensor_is_an_input_too() -> None:
    known = examined("plain")
    assert verify(known.model, Plan.uniform(known.groups, 0.5), IMAGE()[0]) < EXACT


def _without(group: ChannelGroup, tensor: str) -> ChannelGroup:
    return replace(group, slices=tuple(s for s in group.slices if s.tensor != tensor))


def _turned(group: ChannelGroup, tensor: str) -> ChannelGroup:
    slices = [replace(s, coordinates=s.coordinates[::-1]) if s.tensor == tensor else s for s in group.slices]
    return replace(group, slices=tuple(slices))


@pytest.mark.parametrize("tensor", ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "stem.weight"])
def test_a_wrong_index_is_noticed(tensor: str) -> None:
    known = examined("flip")
    group = _turned(known.groups.by_name()["stem"], tensor)
    assert verify(known.model, Plan.of([group], {"stem": (0, 1, 2)}), known.inputs) > 1e-4


def test_a_consumer_that_was_overlooked_is_noticed() -> None:
    known = examined("preactivation")
    group = _without(known.groups.by_name()["first"], "norm2.weight")
    with pytest.raises(RuntimeError):
        verify(known.model, Plan.of([group], {"first": (0, 1, 2)}), known.inputs)


@pytest.mark.parametrize("wrong", ["0.0", "1.0"])
def test_the_group_at_fault_is_found_and_no_other(wrong: str) -> None:
    known = examined("plain")
    kept = {g.name: (0, 1, 2) for g in known.groups}
    assert faulty_groups(known.model, Plan.of(known.groups, kept), known.inputs) == {}
    norm = f"{wrong[0]}.1"
    groups = [_turned(g, f"{norm}.bias") if g.name == wrong else g for g in known.groups]
    faults = faulty_groups(known.model, Plan.of(groups, kept), known.inputs)
    assert set(faults) == {wrong}
    assert "differ" in faults[wrong]


def test_an_output_that_is_not_finite_is_no_proof() -> None:
    known, model = examined("plain"), build("plain")
    with torch.no_grad():
        model.get_parameter("4.bias").fill_(float("nan"))
    assert verify(model, Plan.uniform(known.groups, 0.5), known.inputs) == float("inf")


def test_single_precision_can_be_asked_for() -> None:
    known = examined("residual")
    wrong = verify(known.model, Plan.uniform(known.groups, 0.5), known.inputs, dtype=torch.float32)
    assert wrong < 1e-4
