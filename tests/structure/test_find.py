"""The groups that must be found, those that must not, and what is said about the rest."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import get_default_qat_qconfig, prepare_qat
from torch.nn import functional as F

from compressor.errors import InputError
from compressor.structure import ChannelGroup, Plan, find_groups, shrink, verify
from tests.structure.examined import EXACT, examined, random_plan, state
from tests.structure.networks import CASES, IMAGE, Between, Call, build, inputs_of, randomised

SIZED = [name for name, case in CASES.items() if case.sizes is not None]
LEFT = [(name, layer) for name, case in CASES.items() for layer in case.left]


@pytest.mark.parametrize("name", SIZED)
def test_the_groups_are_found(name: str) -> None:
    assert {g.name: g.size for g in examined(name).groups} == CASES[name].sizes


@pytest.mark.parametrize(("name", "layer"), LEFT)
def test_what_cannot_be_cut_is_named_with_a_reason(name: str, layer: str) -> None:
    reasons = [skipped.reason for skipped in examined(name).groups.skipped if layer in skipped.layers]
    assert len(reasons) == 1
    assert reasons[0] and CASES[name].left[layer] in reasons[0]


@pytest.mark.parametrize("name", CASES)
def test_every_layer_is_in_a_group_or_skipped(name: str) -> None:
    known = examined(name)
    named = {layer for skipped in known.groups.skipped for layer in skipped.layers}
    named |= {layer for group in known.groups for layer in (*group.producers, *group.carriers)}
    kinds = nn.Linear | nn.modules.conv._ConvNd | nn.Embedding | nn.MultiheadAttention
    layers = {layer for layer, module in known.model.named_modules() if isinstance(module, kinds)}
    assert layers <= {n.removesuffix(".parametrizations.weight") for n in named}


@pytest.mark.parametrize("name", CASES)
def test_every_unit_is_in_the_group_of_its_layer(name: str) -> None:
    """Nothing is lost between the groups: the units of a layer that is cut at all are all of its channels."""
    known = examined(name)
    owned: dict[tuple[str, int], list[int]] = {}
    for group in known.groups:
        for cut in group.slices:
            owned.setdefault((cut.tensor, cut.axis), []).extend(c for unit in cut.coordinates for c in unit)
    for (tensor, axis), coordinates in owned.items():
        assert len(coordinates) == len(set(coordinates)), f"{tensor} axis {axis}"
    skipped = {layer for item in known.groups.skipped for layer in item.layers}
    parameters = dict(known.model.named_parameters())
    for group in known.groups:
        for cut in group.slices:
            if cut.role == "producer" and cut.layer not in skipped and cut.conv_groups == 1:
                assert len(owned[cut.tensor, cut.axis]) == parameters[cut.tensor].shape[cut.axis], cut.tensor


@pytest.mark.parametrize("name", CASES)
def test_slices_fit_their_tensors(name: str) -> None:
    known = examined(name)
    shapes = {n: t.shape for n, t in [*known.model.named_parameters(), *known.model.named_buffers()]}
    for group in known.groups:
        assert group.producers and group.consumers
        for cut in group.slices:
            assert len(cut.coordinates) == group.size
            assert max(c for unit in cut.coordinates for c in unit) < shapes[cut.tensor][cut.axis] * cut.conv_groups


@pytest.mark.parametrize("name", CASES)
def test_the_model_is_left_as_it_was(name: str) -> None:
    model, inputs = build(name), inputs_of(name)
    first = next(model.children(), model)
    first.train()
    before = state(model)
    find_groups(model, inputs)
    assert state(model) == before


@pytest.mark.parametrize("name", ["residual", "separate", "auxiliary", "grouped_twice"])
def test_the_groups_do_not_depend_on_data_or_weights(name: str) -> None:
    assert find_groups(build(name, seed=5), inputs_of(name, seed=6)) == examined(name).groups


# ---- the clear cases, coordinate by coordinate ----------


def group(name: str, layer: str) -> ChannelGroup:
    return examined(name).groups.by_name()[layer]


def coordinates(name: str, layer: str, tensor: str) -> tuple[tuple[int, ...], ...]:
    return next(s.coordinates for s in group(name, layer).slices if s.tensor == tensor and s.role != "producer")


def test_a_residual_stream_is_one_group() -> None:
    found = group("residual", "stem.0")
    assert found.producers == ("stem.0", "outer")
    assert found.consumers == ("inner.0", "head")
    assert set(found.carriers) == {"stem.1", "norm"}


def test_a_bottleneck_joins_its_shortcut() -> None:
    found = group("bottleneck", "three")
    assert set(found.producers) == {"three", "shortcut"}
    assert set(found.carriers) == {"norm3", "norms"}
    assert found.consumers == ("head",)


def test_pre_activation_norms_carry_the_stream() -> None:
    assert set(group("preactivation", "stem").carriers) == {"norm1", "norm3"}


def test_squeeze_excite_and_depthwise_follow_the_widened_channels() -> None:
    found = group("invertedresidual", "grow.0")
    assert set(found.producers) == {"grow.0", "excite.expand"}
    assert set(found.consumers) == {"excite.reduce", "shrink"}
    assert {"deep.0", "deep.1", "grow.1"} == set(found.carriers)


def test_norms_after_a_concatenation_are_cut_at_the_right_offset() -> None:
    assert coordinates("denseconcat", "one", "norm2.running_mean") == tuple((c,) for c in range(4, 10))
    assert coordinates("denseconcat", "two", "head.weight") == tuple((c,) for c in range(10, 15))


def test_branches_are_read_at_their_offsets() -> None:
    first = [coordinates("inception", layer, "join.0.weight")[0] for layer in ("a.0", "b.1.0", "c.1.0")]
    assert first == [(0,), (4,), (9,)]


def test_a_flattened_map_gives_every_unit_its_pixels() -> None:
    assert coordinates("flatten", "0.0", "3.weight")[1] == tuple(range(16, 32))
    assert coordinates("flatten_nhwc", "0.0", "3.weight")[1] == tuple(range(1, 96, 6))


def test_flipped_channels_are_read_backwards() -> None:
    assert coordinates("flip", "stem", "last.weight") == tuple((c,) for c in reversed(range(8)))


def test_repeated_channels_are_read_twice() -> None:
    assert coordinates("repeat", "stem", "last.weight")[3] == (3, 11)
    assert coordinates("repeat_interleave", "stem", "last.weight")[3] == (6, 7)


def test_grouped_convolutions_ask_for_equal_counts() -> None:
    assert group("grouped", "stem").blocks == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert group("grouped", "middle.0").step == 2


def test_two_grouped_convolutions_in_a_row_agree_on_the_finer_blocks() -> None:
    assert group("grouped_twice", "middle.0.0").step == 4


def test_a_group_norm_is_cut_by_whole_groups() -> None:
    assert coordinates("group_norm", "stem", "last.weight") == ((0, 1), (2, 3), (4, 5), (6, 7))


def test_a_stream_through_a_shared_module_is_one_group() -> None:
    found = group("repeated", "stem.0")
    assert found.producers == ("stem.0", "step.2")
    assert set(found.consumers) == {"step.0", "head"}


def test_buffers_and_raw_parameters_are_carriers() -> None:
    for name in ("raw_scale", "raw_buffers", "raw_scale_nhwc"):
        assert {"middle.scale", "middle.shift"} <= {s.tensor.replace(".inner", "") for s in group(name, "stem").slices}


def test_heads_own_their_queries_keys_and_values() -> None:
    owned = next(s.coordinates for s in group("transformer", "attend.qkv").slices if s.tensor == "attend.qkv.weight")
    assert owned[1] == (3, 4, 5, 15, 16, 17, 27, 28, 29)


def test_separate_projections_are_cut_by_the_same_heads() -> None:
    found = group("separate", "q")
    assert set(found.producers) == {"q", "k", "v"}
    assert found.consumers == ("out",)


# ---- reshapings of every width: no lucky trial ----------


def _first_channels(t: Tensor) -> Tensor:
    t = t.clone()
    t[:, :2].mul_(2)
    return t


SHUFFLES = {
    "roll": lambda t: t.roll(1, 1),
    "roll_half": lambda t: t.roll(t.shape[1] // 2, 1),
    "chunks": lambda t: torch.cat(t.chunk(2, 1)[::-1], 1),
    "other_half": lambda t: torch.cat([t.chunk(2, 1)[0] * 2, t.chunk(2, 1)[1]], 1),
    "thirds": lambda t: torch.cat(t.tensor_split(3, 1)[::-1], 1),
    "parity": lambda t: torch.cat([t[:, ::2], t[:, 1::2]], 1),
    "shuffle": lambda t: t.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
    "first": _first_channels,
    "ramp": lambda t: t * torch.linspace(1, 2, t.shape[1]).to(t).view(-1, 1, 1),
    "centred": lambda t: t - t.mean(1, keepdim=True),
    "sorted": lambda t: t.sort(1).values,
    "summed": lambda t: t.cumsum(1),
    "flip": lambda t: t.flip(1),
    "reversed": lambda t: torch.stack(t.unbind(1)[::-1], 1),
}


@pytest.mark.parametrize(("shuffle", "width"), [*itertools.product(SHUFFLES, (4, 6, 8, 10, 14, 18))])
def test_what_is_found_holds_for_every_plan(shuffle: str, width: int) -> None:
    torch.manual_seed(0)
    model = randomised(Between(Call(SHUFFLES[shuffle]), width, width))
    x = torch.randn(1, 3, 5, 5)
    groups = find_groups(model, x)
    everything = [Plan.uniform(groups, keep) for keep in (0.2, 0.5, 0.8)]
    everything += [random_plan(groups, seed) for seed in range(5)]
    assert max(verify(model, plan, x) for plan in everything) < EXACT


@pytest.mark.parametrize("width", [4, 5, 8, 12])
def test_a_flip_is_pruned_at_every_width(width: int) -> None:
    model = randomised(Between(lambda t: t.flip(1), width, width))
    assert find_groups(model, IMAGE()).by_name()["stem"].size == width


class Running(nn.Module):
    """Keeps statistics in evaluation mode, too, and reads what it kept before."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)
        self.register_buffer("mean", torch.ones(8))
        self.register_buffer("last", torch.zeros(2, 8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        scaled = h / (1 + self.mean.abs()).reshape(1, -1, 1, 1) + self.last.sum()
        self.mean.mul_(0.9).add_(h.mean((0, 2, 3)), alpha=0.1)
        self.last = h.mean((2, 3)).detach()
        return self.head(self.b(scaled).mean((2, 3)))


def test_buffers_that_a_pass_writes_are_as_before() -> None:
    model, x = randomised(Running()), torch.randn(2, 3, 8, 8)
    before = state(model)
    groups = find_groups(model, x)
    assert state(model) == before
    assert {g.name for g in groups} == {"b"}
    assert verify(model, Plan.uniform(groups, 0.5), x) < EXACT
    assert state(model) == before


class Momentum(nn.Module):
    """A frozen parameter follows the data in training, and is used nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.center = nn.Parameter(torch.zeros(6), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.a(x).relu())
        if self.training:
            self.center.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
        return self.head(h.relu())


def test_parameters_that_training_writes_are_as_before() -> None:
    model, x = randomised(Momentum()), torch.randn(2, 5)
    before = state(model)
    groups = find_groups(model, x)
    assert state(model) == before
    assert {g.name: g.size for g in groups} == {"a": 8, "b": 6}
    assert shrink(model, Plan.uniform(groups, 0.5)).train()(x).shape == (2, 3)


class SingleOnly(nn.Sequential):
    """Its code asks for single precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def test_what_runs_in_single_precision_only_is_proved_in_it() -> None:
    model, x = randomised(SingleOnly(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))), torch.randn(2, 5)
    groups = find_groups(model, x)
    assert [g.name for g in groups] == ["0"]
    assert 0 <= verify(model, Plan.uniform(groups, 0.5), x) < 1e-5


def test_a_network_that_a_copy_would_not_follow_is_refused() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    layers = list(model)
    model.forward = lambda x: layers[2](layers[1](layers[0](x)))  # type: ignore[method-assign]
    with pytest.raises(InputError, match="copy"):
        find_groups(model, torch.randn(2, 5))


@pytest.mark.parametrize("model", [nn.Identity(), nn.Sequential(nn.Flatten(), nn.Softmax(-1))])
def test_a_network_without_weights_has_no_groups(model: nn.Module) -> None:
    assert not find_groups(model.eval(), torch.randn(2, 5))


# ---- what the user says ----------


def test_kept_layers_are_left_alone() -> None:
    groups = find_groups(build("plain"), inputs_of("plain"), keep=["4"])
    assert {g.name for g in groups} == {"0.0"}
    assert any("1.0" in s.layers and "(4)" in s.reason for s in groups.skipped)


def test_keeping_a_layer_keeps_what_it_makes_and_what_it_reads() -> None:
    groups = find_groups(build("bottleneck"), inputs_of("bottleneck"), keep=["two.*"])
    assert {g.name for g in groups} == {"stem.0", "three"}


@pytest.mark.parametrize("pattern", ["two", "t?o"])
def test_keeping_a_block_keeps_all_in_it(pattern: str) -> None:
    inputs = inputs_of("bottleneck")
    assert {g.name for g in find_groups(build("bottleneck"), inputs, keep=[pattern])} == {"stem.0", "three"}


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="inner"):
        find_groups(build("residual"), inputs_of("residual"), keep=["inher.*"])


def test_a_time_limit_ends_the_search() -> None:
    model = build("residual")
    before = state(model)
    groups = find_groups(model, inputs_of("residual"), seconds=0.0)
    assert not groups
    assert any("ran out of time" in skipped.reason for skipped in groups.skipped)
    assert state(model) == before


def test_the_model_survives_an_error_of_its_own() -> None:
    def failing(t: Tensor) -> Tensor:
        raise ValueError("no such luck")

    model = Between(failing).train()
    before = state(model)
    with pytest.raises(ValueError, match="no such luck"):
        find_groups(model, IMAGE())
    assert state(model) == before


def test_a_network_that_takes_another_way_each_time_is_refused() -> None:
    turns = itertools.cycle([F.relu, lambda t: F.group_norm(t.abs() + 1, 2)])
    with pytest.raises(InputError, match="control flow changes"):
        find_groups(Between(lambda t: next(turns)(t)), IMAGE())


def test_a_network_that_draws_numbers_in_its_forward_pass_is_refused() -> None:
    class Noisy(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x + torch.rand(()))

    with pytest.raises(InputError, match="something else from run to run"):
        find_groups(Noisy(nn.Linear(4, 6), nn.Linear(6, 2)), torch.randn(2, 4))


def quantisable(model: nn.Module) -> nn.Module:
    setattr(model, "qconfig", get_default_qat_qconfig())  # noqa: B010 - modules have no such attribute
    prepared = prepare_qat(model.train())
    assert isinstance(prepared, nn.Module)
    return prepared


WRAPS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "scripted": torch.jit.script,
    "traced": lambda model: torch.jit.trace(model, torch.randn(2, 4)),
    "compiled": torch.compile,  # type: ignore[dict-item]
    "exported": lambda model: torch.export.export(model, (torch.randn(2, 4),)).module(),
    "quantisable": quantisable,
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_network_that_is_not_plain_any_more_is_refused(wrap: str) -> None:
    wrapped = WRAPS[wrap](nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)))
    with pytest.raises(InputError, match="give the plain nn.Module"):
        find_groups(wrapped, torch.randn(2, 4))
    with pytest.raises(InputError, match="give the plain nn.Module"):
        find_groups(nn.Sequential(wrapped, nn.Linear(2, 2)), torch.randn(2, 4))


def test_a_gradient_context_is_not_changed() -> None:
    with torch.enable_grad():
        find_groups(build("plain"), inputs_of("plain"))
        assert torch.is_grad_enabled()


class Remembers(nn.Module):
    """Writes down the size of what it saw, and computes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.side = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.side = max(self.side, x.shape[-1]) if self.side else x.shape[-1]
        return self.last(self.first(x) * self.side)


def test_what_a_forward_pass_writes_down_is_as_before() -> None:
    model = Remembers()
    assert len(find_groups(model, torch.randn(1, 3, 128, 128))) == 1
    assert model.side == 0
