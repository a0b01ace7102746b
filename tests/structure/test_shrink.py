"""The compact network is an ordinary one: true attributes, trainable, and prunable again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compressor.errors import InputError
from compressor.structure import ChannelGroup, Plan, find_groups, shrink, verify
from tests.structure.examined import EXACT, examined, plans, random_plan, run, same, state, tensors
from tests.structure.networks import CASES, build, inputs_of

PRUNABLE = [name for name, case in CASES.items() if case.sizes != {}]


def attributes_are_true(module: nn.Module) -> bool:
    match module:
        case _ConvTransposeNd():
            return tuple(module.weight.shape[:2]) == (module.in_channels, module.out_channels // module.groups)
        case _ConvNd():
            return tuple(module.weight.shape[:2]) == (module.out_channels, module.in_channels // module.groups)
        case nn.Linear():
            return tuple(module.weight.shape) == (module.out_features, module.in_features)
        case _NormBase():
            own = [t for t in (module.weight, module.bias, module.running_mean, module.running_var) if t is not None]
            return all(len(t) == module.num_features for t in own)
        case nn.GroupNorm():
            return len(module.weight) == module.num_channels and module.num_channels % module.num_groups == 0
        case nn.LayerNorm() | nn.RMSNorm():
            return tuple(module.weight.shape) == tuple(module.normalized_shape)
        case nn.PReLU():
            return len(module.weight) == module.num_parameters
        case nn.Embedding():
            return tuple(module.weight.shape) == (module.num_embeddings, module.embedding_dim)
        case _:
            return True


@pytest.mark.parametrize("name", CASES)
def test_attributes_say_what_the_weights_are(name: str) -> None:
    known = examined(name)
    for plan in plans(known.groups):
        small = shrink(known.model, plan)
        wrong = [layer for layer, module in small.named_modules() if not attributes_are_true(module)]
        assert not wrong, wrong


@pytest.mark.parametrize("name", CASES)
def test_the_weights_get_fewer_where_there_are_groups(name: str) -> None:
    known = examined(name)
    small = shrink(known.model, Plan.uniform(known.groups, 0.5))
    count = [sum(p.numel() for p in model.parameters()) for model in (known.model, small)]
    assert count[1] < count[0] if known.groups else count[1] == count[0]


@pytest.mark.parametrize("name", CASES)
def test_the_argument_is_untouched_and_shares_nothing(name: str) -> None:
    known = examined(name)
    before = state(known.model)
    small = shrink(known.model, Plan.uniform(known.groups, 0.5))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert state(known.model) == before


@pytest.mark.parametrize("name", CASES)
def test_a_full_plan_changes_nothing(name: str) -> None:
    known = examined(name)
    small = shrink(known.model, Plan.of(known.groups, {}))
    assert same(run(small, known.inputs), run(known.model, known.inputs))
    assert repr(small) == repr(known.model)


@pytest.mark.parametrize("name", CASES)
def test_it_trains(name: str) -> None:
    """One step in training mode moves every weight that a step of the dense network moves."""
    known = examined(name)
    small = shrink(known.model, random_plan(known.groups, 1)).train()
    moved = [_step(model, known.inputs) for model in (build(name).train(), small)]
    assert moved[1] == moved[0]
    assert all(p.isfinite().all() for p in small.parameters())


def _step(model: nn.Module, inputs: tuple[object, ...]) -> set[str]:
    """Names of the parameters that have a gradient; all that are trainable are moved along it."""
    loss = sum(t.square().mean() for t in tensors(model(*inputs)))
    assert isinstance(loss, torch.Tensor)
    if not loss.requires_grad:
        return set()
    loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01).step()
    return {name for name, p in model.named_parameters() if p.grad is not None}


def _first_layer(group: ChannelGroup) -> str:
    return group.name.partition("[")[0]


@pytest.mark.parametrize("name", PRUNABLE)
def test_a_second_round_works(name: str) -> None:
    """What is left is found again, and cut again."""
    known = examined(name)
    small = shrink(known.model, Plan.uniform(known.groups, 0.75))
    groups = find_groups(small, known.inputs)
    kept = [(p.group, len(p.kept)) for p in Plan.uniform(known.groups, 0.75).groups]
    left = Counter((_first_layer(group), size) for group, size in kept if size > group.step)
    assert left <= Counter((_first_layer(group), group.size) for group in groups)
    plan = Plan.uniform(groups, 0.5)
    assert verify(small, plan, known.inputs) < EXACT
    assert all(attributes_are_true(module) for module in shrink(small, plan).modules())


@pytest.mark.parametrize("name", ["residual", "grouped", "group_norm", "separate", "denseconcat", "depthwise"])
def test_one_unit_is_enough(name: str) -> None:
    known = examined(name)
    plan = Plan.of(known.groups, {g.name: g.balanced(range(g.size))[-g.step :] for g in known.groups})
    assert verify(known.model, plan, known.inputs) < EXACT


def test_frozen_weights_stay_frozen() -> None:
    known = examined("frozen_parameters")
    small = shrink(known.model, Plan.uniform(known.groups, 0.5))
    assert not any(p.requires_grad for p in small.parameters())


def test_modes_and_precision_stay() -> None:
    known = examined("residual")
    model = build("residual").double()
    model.inner.train()
    small = shrink(model, Plan.uniform(known.groups, 0.5))
    assert [m.training for m in small.modules()] == [m.training for m in model.modules()]
    assert {p.dtype for p in small.parameters()} == {torch.float64}


def test_tied_weights_stay_tied() -> None:
    known = examined("tied")
    small = shrink(known.model, Plan.uniform(known.groups, 0.5))
    assert small.head.weight is small.embed.weight


def test_a_shared_module_stays_shared() -> None:
    known = examined("siamese")
    small = shrink(known.model, Plan.uniform(known.groups, 0.5))
    assert [n for n, _ in small.named_modules()] == [n for n, _ in known.model.named_modules()]


def test_buffers_stay_buffers() -> None:
    known = examined("raw_buffers")
    small = shrink(known.model, Plan.uniform(known.groups, 0.5))
    assert {n: b.shape[1] for n, b in small.named_buffers() if n.startswith("middle")} == {
        "middle.scale": 4,
        "middle.shift": 4,
    }


def test_the_head_count_becomes_what_is_left() -> None:
    known = examined("separate")
    small = shrink(known.model, Plan.of(known.groups, {"q": (1, 3)}))
    assert (small.num_heads, small.num_kv_heads, small.head_dim) == (2, 2, 3)


@pytest.mark.parametrize("name", ["auxiliary", "trainingonly"])
def test_what_runs_in_training_only_follows(name: str) -> None:
    known = examined(name)
    small = shrink(known.model, Plan.uniform(known.groups, 0.5)).train()
    assert small(*known.inputs).shape == (2, 4)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("inference", [True, False])
def test_the_compact_network_has_its_own_tensors(first: bool, inference: bool) -> None:
    with torch.inference_mode(inference):
        model = build("plain").requires_grad_(False)
    groups = examined("plain").groups
    kept = {g.name: range(g.size // 2) if first else range(1, g.size) for g in groups}
    own = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    small = shrink(model, Plan.of(groups, kept))
    assert own.isdisjoint(t.untyped_storage().data_ptr() for t in small.state_dict().values())


def test_a_plan_of_another_network_is_refused() -> None:
    with pytest.raises(InputError, match="does not have"):
        shrink(build("plain"), Plan.uniform(examined("residual").groups, 0.5))


def test_a_network_that_is_cut_already_is_refused() -> None:
    known = examined("plain")
    plan = Plan.of(known.groups, {g.name: range(2, g.size) for g in known.groups})
    with pytest.raises(InputError, match="too small"):
        shrink(shrink(known.model, plan), plan)


def test_groups_of_a_convolution_that_the_network_does_not_have_are_refused() -> None:
    known = examined("plain")
    planned = Plan.uniform(known.groups, 0.5).groups[0]
    slices = tuple(replace(s, conv_groups=1 << 22) for s in planned.group.slices)
    plan = Plan((replace(planned, group=replace(planned.group, slices=slices)),))
    with pytest.raises(InputError, match="not 4194304 groups"):
        shrink(known.model, plan)


def test_it_exports_to_the_same_result() -> None:
    known = examined("invertedresidual")
    small = shrink(known.model, Plan.uniform(known.groups, 0.5))
    exported = torch.export.export(small, inputs_of("invertedresidual"))
    torch.testing.assert_close(exported.module()(*known.inputs), small(*known.inputs))


def test_fused_kernels_for_whole_layers_are_not_used_where_heads_were_cut() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)).eval()
    inputs = torch.randn(2, 5, 8)
    small = shrink(model, Plan.uniform(find_groups(model, inputs), 0.5))
    expected = small(inputs)
    with torch.no_grad():
        assert torch.allclose(small(inputs), expected, atol=1e-6)
