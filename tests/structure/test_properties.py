"""Random networks of the building blocks, random plans, random inputs: both equations hold on all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.structure import Plan, find_groups, load_compact, save_compact, shrink, verify
from tests.structure.examined import EXACT, random_plan, run, same, state
from tests.structure.networks import ChannelsLast, FusedAttention, Raw, SqueezeExcite, conv_bn, randomised

Block = tuple[nn.Module, int]


class Sum(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class Concat(Sum):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Attend(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.attend = nn.LayerNorm(width), FusedAttention(width, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return x + self.attend(self.norm(tokens)).transpose(1, 2).reshape(x.shape)


class Reorder(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        match self.kind:
            case "flip":
                return x.flip(1)
            case "roll":
                return x.roll(1, 1)
            case "swap":
                return torch.cat(x.chunk(2, 1)[::-1], 1)
            case "shuffle":
                return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
            case _:
                return F.pad(x, (0, 0, 0, 0, 1, 0))[:, 1:]


BLOCKS: dict[str, Callable[[int, int], Block]] = {
    "conv": lambda c, d: (conv_bn(c, d), d),
    "pointwise": lambda c, d: (nn.Conv2d(c, d, 1), d),
    "residual": lambda c, d: (Sum(nn.Identity(), nn.Sequential(conv_bn(c, d), nn.Conv2d(d, c, 3, padding=1))), c),
    "two": lambda c, d: (Sum(conv_bn(c, d, 1), conv_bn(c, d)), d),
    "dense": lambda c, d: (Concat(nn.Identity(), conv_bn(c, d)), c + d),
    "branches": lambda c, d: (Concat(conv_bn(c, d), conv_bn(c, 4, 1)), d + 4),
    "depthwise": lambda c, d: (conv_bn(c, c, groups=c), c),
    "grouped": lambda c, d: (nn.Sequential(conv_bn(c, 8), conv_bn(8, 2 * d, groups=2)), 2 * d),
    "excite": lambda c, d: (SqueezeExcite(c, d), c),
    "prelu": lambda c, d: (nn.PReLU(c), c),
    "scale": lambda c, d: (Raw(1, c, 1, 1), c),
    "buffers": lambda c, d: (ChannelsLast(Raw(c, buffer=True)), c),
    "instance": lambda c, d: (nn.InstanceNorm2d(c, affine=True, track_running_stats=True), c),
    "group_norm": lambda c, d: (nn.Sequential(conv_bn(c, 2 * d), nn.GroupNorm(d, 2 * d)), 2 * d),
    "layer_norm": lambda c, d: (ChannelsLast(nn.LayerNorm(c)), c),
    "transposed": lambda c, d: (nn.ConvTranspose2d(c, d, 3, padding=1), d),
    "attend": lambda c, d: (Attend(c), c),
    **{
        kind: lambda c, d, kind=kind: (nn.Sequential(conv_bn(c, 2 * d), Reorder(kind)), 2 * d)
        for kind in ("flip", "roll", "swap", "shuffle", "pad")
    },
}

HEADS = ("mean", "flat", "map")


class Network(nn.Sequential):
    """A stem, the blocks, and a classifier on pooled features, on pixels, or on maps."""

    def __init__(self, kinds: list[str], widths: list[int], head: str, size: int) -> None:
        blocks: list[nn.Module] = [conv_bn(3, widths[0])]
        channels = widths[0]
        for kind, width in zip(kinds, widths[1:], strict=True):
            block, channels = BLOCKS[kind](channels, width)
            blocks.append(block)
        match head:
            case "mean":
                blocks += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]
            case "flat":
                blocks += [nn.Flatten(), nn.Linear(channels * size * size, 3)]
            case _:
                blocks += [nn.Conv2d(channels, 3, 1)]
        super().__init__(*blocks)


@st.composite
def networks(draw: st.DrawFn) -> tuple[Callable[[], nn.Module], Tensor]:
    kinds = draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=4))
    widths = draw(st.lists(st.integers(2, 7), min_size=len(kinds) + 1, max_size=len(kinds) + 1))
    head, size, batch = draw(st.sampled_from(HEADS)), draw(st.integers(3, 6)), draw(st.integers(1, 2))
    torch.manual_seed(0)
    return lambda: randomised(Network(kinds, widths, head, size)), torch.randn(batch, 3, size, size)


BRIEF = settings(
    max_examples=50, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=False
)


@BRIEF
@given(networks(), st.lists(st.integers(0, 10_000), min_size=2, max_size=2))
def test_mask_is_shrink_and_saved_is_built(drawn: tuple[Callable[[], nn.Module], Tensor], seeds: list[int]) -> None:
    make, x = drawn
    model = make()
    before = state(model)
    groups = find_groups(model, x)
    assert state(model) == before
    for seed in seeds:
        plan = random_plan(groups, seed)
        assert verify(model, plan, x) < EXACT
    small = shrink(model, plan)
    with tempfile.TemporaryDirectory() as directory:
        save_compact(small, plan, directory)
        assert Plan.load(f"{directory}/plan.json").kept == plan.kept
        assert same(run(load_compact(directory, make()), (x,)), run(small, (x,)))


@BRIEF
@given(networks(), st.integers(0, 10_000))
def test_a_plan_holds_for_every_batch(drawn: tuple[Callable[[], nn.Module], Tensor], seed: int) -> None:
    """Found on one input, right on others."""
    make, x = drawn
    model = make()
    plan = random_plan(find_groups(model, x), seed)
    others = torch.randn(3, *x.shape[1:])
    assert verify(model, plan, others) < EXACT
