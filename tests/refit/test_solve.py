"""Refit: better where units are missing, silent where none are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor.refit.solve
from compressor.refit import Refit, refit, rows_wanted, summary
from compressor.refit.paired import Calls, in_step
from compressor.structure import Plan, find_groups, shrink, verify
from tests.structure.examined import EXACT, random_plan, state
from tests.structure.networks import CASES, build, conv_bn, inputs_of, randomised

CONV = {
    "plain": lambda: conv_bn(8, 8),
    "strided": lambda: conv_bn(8, 8, stride=2),
    "biased": lambda: nn.Conv2d(8, 8, 3, padding=1),
    "dilated": lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2),
    "bare": lambda: nn.Conv2d(8, 8, 3, bias=False),
    "circular": lambda: nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
    "grouped": lambda: conv_bn(8, 8, groups=2),
    "pointwise": lambda: conv_bn(8, 8, 1),
    "transposed": lambda: nn.ConvTranspose2d(8, 8, 2, stride=2),
    "transposed_overlap": lambda: nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1),
    "transposed_bare": lambda: nn.ConvTranspose2d(8, 8, 3, bias=False),
    "transposed_grouped": lambda: nn.ConvTranspose2d(8, 8, 3, groups=2),
    "valid": lambda: nn.Conv2d(8, 8, 3),
    "valid_norm": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)),
    "norm_without_statistics": lambda: nn.Sequential(
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, track_running_stats=False)
    ),
    "norm_without_scale": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False)),
}


def toy(consumer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    tail = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))
    return randomised(nn.Sequential(conv_bn(3, 8), consumer, tail))


def images(count: int = 4, size: int = 16, seed: int = 3, shape: tuple[int, ...] = (3, 8, 8)) -> list[tuple[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(size, *shape, generator=generator),) for _ in range(count)]


def error(model: nn.Module, dense: nn.Module, data: Sequence[tuple[Tensor]]) -> float:
    """Mean squared error of the outputs, relative to their variance."""
    with torch.no_grad():
        left, right = (torch.cat([m(*batch) for batch in data]) for m in (model, dense))
    return float((left - right).square().mean() / (right - right.mean(0)).square().mean())


def halved(model: nn.Module, data: Sequence[tuple[Tensor]], keep: float = 0.5) -> tuple[float, float, list[Refit]]:
    """Error on other inputs without and with the refit of a network that lost units."""
    groups = find_groups(model, data[0])
    plan = Plan.uniform(groups, keep)
    fitted, done = refit(model, plan, data, groups=groups)
    unseen = images(seed=99, shape=tuple(data[0][0].shape[1:]))
    assert verify(fitted, plan, data[0]) < EXACT
    return error(shrink(model, plan), model, unseen), error(shrink(fitted, plan), model, unseen), done


@pytest.mark.parametrize(
    "name", ["residual", "grouped", "transposed_full", "invertedresidual", "separate", "one_dimensional"]
)
def test_a_full_plan_leaves_everything_as_it_is(name: str) -> None:
    model, inputs = build(name), inputs_of(name)
    groups = find_groups(model, inputs)
    fitted, done = refit(model, Plan.of(groups, {}), [inputs, inputs], groups=groups)
    assert not any(entry.applied for entry in done)
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in fitted.state_dict().items())


@pytest.mark.parametrize("kind", CONV)
def test_it_lowers_the_error_on_unseen_inputs(kind: str) -> None:
    before, after, done = halved(toy(CONV[kind]()), images())
    assert after < 0.8 * before
    assert any(entry.applied and entry.after < entry.before for entry in done)


@pytest.mark.parametrize(
    "name", ["residual", "denseconcat", "unet", "flatten", "flatten_nhwc", "matrix_product", "siamese"]
)
def test_it_lowers_the_error_of_whole_networks(name: str) -> None:
    before, after, _ = halved(build(name), images(), 0.75)
    assert after < before


def test_linear_layers_are_refitted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
    before, after, _ = halved(model, images(size=64, shape=(6,)))
    assert after < 0.8 * before


@pytest.mark.parametrize(("size", "share"), [(6, 1.0), (40, 8192 / (16 * 40 * 40))])
def test_what_the_choice_of_positions_costs_is_told(size: int, share: float) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(12, 8, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(8, 4, 1)).eval()
    data = [(torch.randn(16, 3, size, size),)]
    groups = find_groups(model, data[0])
    _, done = refit(model, Plan.uniform(groups, 0.5), data, groups=groups)
    solved = [entry for entry in done if entry.applied]
    assert [entry.layer for entry in solved] == ["2", "4"]
    assert all(entry.share == pytest.approx(share, rel=0.1) for entry in solved)
    assert all(0 < entry.seen < 1.2 * entry.after for entry in solved)
    assert "2 of 3 layers solved again" in summary(done)


def test_what_layers_would_make_of_their_inputs_can_be_mixed_into_the_target() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4)).eval()
    data = [(torch.randn(400, 6),)]
    groups = find_groups(model, data[0])
    first = groups[0]
    plan = Plan.of(groups, {first.name: range(first.size // 2), groups[1].name: range(groups[1].size)})
    moved = []
    for mixing in (1.0, 0.5, 1e-3):
        fitted, _ = refit(model, plan, data, groups=groups, mixing=mixing)
        moved.append(float((fitted[4].weight - model[4].weight).norm()))
    assert moved[0] > moved[1] > 0
    assert moved[2] < 0.01 * moved[0]


def test_tokens_are_refitted() -> None:
    before, after, _ = halved(build("transformer"), images(shape=(5, 8)))
    assert after < before


def test_wide_layers_are_solved_from_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressor.refit.solve, "WIDE", 16)
    monkeypatch.setattr(compressor.refit.solve, "ROWS_OF_WIDE", 256)
    before, after, _ = halved(toy(conv_bn(8, 8)), images())
    assert after < 0.8 * before


def test_a_handful_of_images_changes_nothing() -> None:
    before, after, done = halved(build("residual"), images(count=1, size=9))
    assert after == before
    assert not any(entry.applied for entry in done)


def test_a_bias_that_would_be_worse_elsewhere_is_left_as_it_was() -> None:
    """The last fifth of the images, by which is judged, is of another kind."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[2].weight[:, 4:] *= 0.1
    plan = Plan.uniform(find_groups(model, torch.zeros(1, 6)), 0.5)
    data = [(torch.cat([5 + torch.randn(64, 6), -5 + torch.randn(16, 6)]),)]
    fitted, done = refit(model, plan, data, groups=find_groups(model, torch.zeros(1, 6)))
    assert not done[-1].applied
    assert torch.equal(fitted[2].bias, model[2].bias)


def test_fewer_rows_than_inputs_do_no_harm() -> None:
    before, after, _ = halved(toy(conv_bn(8, 8)), images(count=1, size=1))
    assert after < 2 * before


def duplicated(consumer: Callable[[], nn.Module]) -> nn.Module:
    """Channel 4 of the first layer is channel 0 once more."""
    model = toy(consumer())
    first = model.get_submodule("0")
    with torch.no_grad():
        for name, tensor in first.state_dict().items():
            if tensor.dim():
                assert tensor.shape[0] == 8, name
                tensor[4] = tensor[0]
    return model


@pytest.mark.parametrize(
    "kind", ["plain", "biased", "bare", "pointwise", "transposed", "transposed_overlap", "circular"]
)
def test_a_channel_that_is_there_twice_is_dropped_at_no_price(kind: str) -> None:
    model, data = duplicated(CONV[kind]), images()
    groups = find_groups(model, data[0])
    plan = Plan.of(groups, {"0.0": [c for c in range(8) if c != 4]})
    fitted, _ = refit(model, plan, data, groups=groups)
    unseen = images(seed=99)
    assert error(shrink(model, plan), model, unseen) > 1e-2
    assert error(shrink(fitted, plan), model, unseen) < 1e-5


@pytest.mark.parametrize("kind", ["valid", "valid_norm"])
def test_what_a_constant_channel_adds_is_kept(kind: str) -> None:
    """It goes where there is room for it: into a bias, or into the batch norm that follows."""
    model, data = toy(CONV[kind]()), images()
    with torch.no_grad():
        model.get_parameter("0.1.weight")[2] = 0
        model.get_parameter("0.1.bias")[2] = 3
    groups = find_groups(model, data[0])
    plan = Plan.of(groups, {"0.0": [c for c in range(8) if c != 2]})
    fitted, _ = refit(model, plan, data, groups=groups)
    assert error(shrink(model, plan), model, data) > 1e-2
    assert error(shrink(fitted, plan), model, data) < 1e-5


def test_the_dense_network_is_left_as_it_was() -> None:
    model, data = build("residual").train(), images(2)
    groups = find_groups(model, data[0])
    before = state(model)
    refit(model, Plan.uniform(groups, 0.5), data, groups=groups)
    assert state(model) == before


def test_the_same_seed_gives_the_same_weights() -> None:
    model, data = build("residual"), images(2)
    groups = find_groups(model, data[0])
    plan = random_plan(groups, 1)
    first, second = (refit(model, plan, data, groups=groups, seed=5)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_layers_that_run_more_than_once_are_left_alone() -> None:
    model, data = build("repeated"), images(2)
    groups = find_groups(model, data[0])
    fitted, _ = refit(model, Plan.of(groups, {"stem.0": range(4)}), data, groups=groups)
    kept = [model.get_parameter("step.0.weight")[:, :4], fitted.get_parameter("step.0.weight")[:, :4]]
    assert torch.equal(*kept)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.sizes != {}])
def test_every_network_of_the_collection_is_refitted(name: str) -> None:
    model, inputs = build(name), inputs_of(name)
    groups = find_groups(model, inputs)
    plan = Plan.uniform(groups, 0.5)
    fitted, _ = refit(model, plan, [inputs, inputs_of(name, seed=2)], groups=groups)
    assert verify(fitted, plan, inputs) < EXACT
    assert all(t.isfinite().all() for t in fitted.state_dict().values() if t.is_floating_point())


def test_weights_that_are_buffers_are_refitted_too() -> None:
    class Kernel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kernel", torch.randn(8, 8, 3, 3) / 9)

        def forward(self, x: Tensor) -> Tensor:
            return torch.conv2d(x, self.kernel, padding=1)

    model, data = toy(Kernel()), images()
    groups = find_groups(model, data[0])
    fitted, _ = refit(model, Plan.uniform(groups, 0.5), data, groups=groups)
    assert all(t.isfinite().all() for t in fitted.buffers())


def test_progress_is_told_layer_by_layer() -> None:
    model, data = build("plain"), images(2)
    groups = find_groups(model, data[0])
    told: list[tuple[int, int]] = []
    refit(model, Plan.uniform(groups, 0.5), data, groups=groups, progress=lambda *step: told.append(step))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_depthwise_convolution_is_scaled_and_shifted() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(conv_bn(3, 16), conv_bn(16, 16), conv_bn(16, 16, groups=16), nn.Flatten(), nn.Linear(1024, 4))
    model, data = randomised(body), images()
    groups = find_groups(model, data[0])
    plan = Plan.of(groups, {g.name: tuple(range(g.size // 4 if g.name.startswith("0.") else g.size)) for g in groups})
    fitted, done = refit(model, plan, data, groups=groups)
    (entry,) = (entry for entry in done if entry.layer.startswith("2."))
    assert entry.applied and entry.after < entry.before
    old, new = (m.state_dict()[f"{entry.layer}.weight"] for m in (model, fitted))
    assert torch.allclose(new / old, (new / old)[:, :, :1, :1].expand_as(old), rtol=1e-3)
    assert not torch.allclose(new, old)


def test_little_memory_gives_about_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer images come to the first layers then, with more positions of each."""
    model, data = toy(conv_bn(8, 8)), images(16)
    _, after, done = halved(model, data)
    begun: list[int] = []

    def tight(*args: Any) -> Iterator[Calls]:
        for calls in in_step(*args, most=2**20):
            begun.append(calls.images)
            yield calls

    monkeypatch.setattr(compressor.refit.solve, "in_step", tight)
    _, again, redone = halved(model, data)
    assert begun[0] < begun[-1] < 256
    assert again < 1.1 * after
    assert [entry.layer for entry in redone] == [entry.layer for entry in done]
    assert all(entry.share <= 1 for entry in redone)
    assert [entry.share for entry in halved(model, data)[2]] == [entry.share for entry in redone]


@pytest.mark.parametrize(("images", "rows"), [(100, 8_192), (1_000, 16_000), (100_000, 2**28 // 400)])
def test_rows_do_not_grow_without_end(images: int, rows: int) -> None:
    assert rows_wanted(1, 100, images) == rows
    assert rows_wanted(1, 4_000, 100_000) == 16_777
    assert rows_wanted(1, 5_001, 100_000) == 2_048
