"""Groups that vanish together: every layer that is left must have something to read that is not constant."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import exporters
from compressor import find_groups, shrink, verify
from compressor.errors import InputError
from compressor.structure import Groups, Plan
from compressor.structure.surgery.zero_width import can_vanish
from tests.structure.networks import randomised


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class Branch(nn.Module):
    """Two convolutions; the channels between them are the group `inner` of the branch."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inner, self.norm, self.outer = conv(inputs, 6), nn.BatchNorm2d(6), conv(6, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.norm(self.inner(x)).relu())


class Squeezed(nn.Module):
    """An inverted residual branch with squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = (
            conv(8, 12, 1),
            nn.Conv2d(12, 12, 3, 1, 1, groups=12),
            conv(12, 8, 1),
        )
        self.fc1, self.fc2 = conv(12, 4, 1), conv(4, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.expand(x).relu()).relu()
        return self.project(x * self.fc2(self.fc1(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid())


class Net(nn.Module):
    """Branches a, b, c between a stem and a last layer, wired in one of several ways."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, width = kind, 16 if kind in ("padded", "padded twice") else 8
        inputs = 8 if kind == "input" else 3
        self.stem, self.last, self.head = conv(inputs, 8), conv(width, 8), nn.Linear(8, 4)
        squeezed = kind in ("squeezed", "squeezed alone")
        self.a: nn.Module = Squeezed() if squeezed else Branch(8, width if kind == "padded" else 8)
        self.b, self.c = Branch(8, 8), Branch(8, width)
        if kind in ("outputs", "input"):
            self.other = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        given, x = x, self.stem(x).relu()
        a, b, c = self.a, self.b, self.c
        match self.kind:
            case "parallel":
                x = a(x) + b(x) + c(x)
            case "padded":
                x = (F.pad(x, (0, 0, 0, 0, 4, 4)) + a(x)).relu()
                x = x + c(b(x[:, :8]).relu())
            case "padded twice":
                x = a(x) + b(x)
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)) + c(x)[:, :, ::2, ::2]
            case "chain":
                x = a(x) + b(x)
                x = x + c(x)
            case "squeezed":
                x = x + a(x) + b(x) + c(x)
            case "squeezed alone":
                x = b(x) + c(a(x))
            case "beside":
                x = torch.cat([a(x)[:, :4] + b(x)[:, :4], c(x)[:, 4:]], 1)
            case "input":
                return self.head(self.last(given + a(given) + b(given)).mean((2, 3))), self.other(x.mean((2, 3)))
            case "outputs":
                return self.head(self.last(x + a(x)).mean((2, 3))), self.other(b(x).mean((2, 3)) + c(x).mean((2, 3)))
        return self.head(self.last(x).mean((2, 3)))


KINDS: dict[str, tuple[set[str], set[str]]] = {
    "parallel": ({"a.inner b.inner", "a.inner c.inner", "b.inner c.inner"}, {"a.inner", "b.inner", "c.inner"}),
    "padded": ({"a.inner c.inner"}, {"a.inner", "c.inner"}),
    "padded twice": ({"a.inner c.inner", "b.inner c.inner"}, {"a.inner", "b.inner", "c.inner"}),
    "chain": ({"a.inner c.inner", "b.inner c.inner"}, {"a.inner", "b.inner", "c.inner"}),
    "squeezed": ({"a.expand a.fc1 b.inner c.inner"}, {"a.expand", "a.fc1", "b.inner", "c.inner"}),
    "squeezed alone": ({"a.fc1 b.inner", "a.fc1 c.inner"}, {"a.fc1", "b.inner", "c.inner"}),
    "beside": ({"a.inner", "b.inner"}, {"a.inner", "b.inner"}),
    "input": ({"a.inner b.inner"}, {"a.inner", "b.inner"}),
    "outputs": ({"a.inner b.inner", "a.inner c.inner"}, {"a.inner", "b.inner", "c.inner"}),
}
"""For every wiring the largest sets that may vanish together, and the groups that may vanish at all."""


@cache
def subject(kind: str) -> tuple[nn.Module, Groups, Tensor]:
    torch.manual_seed(0)
    model, x = randomised(Net(kind)), torch.randn(2, 8 if kind == "input" else 3, 8, 8)
    return model, find_groups(model, x), x


def vanishing(groups: Groups) -> list[str]:
    return [group.name for group in groups if group.vanishes]


def subsets(names: Collection[str]) -> Iterator[tuple[str, ...]]:
    for size in range(1, len(names) + 1):
        yield from combinations(names, size)


def leaves_something(model: nn.Module, groups: Groups, gone: Collection[str], x: Tensor) -> bool:
    """Whether every layer that is left and matters reads something that depends on the input, by looking at it."""
    small = shrink(model, Plan.of(list(groups), dict.fromkeys(gone, ()))).eval()
    read: dict[nn.Module, list[Tensor]] = {m: [] for m in small.modules() if can_vanish(m)}
    hooks = [m.register_forward_pre_hook(lambda m, args: read[m].append(args[0])) for m in read]
    with torch.no_grad():
        one, other = small(x), small(x + torch.randn_like(x))
        for hook in hooks:
            hook.remove()
        starved = [m for m, inputs in read.items() if inputs and torch.equal(*inputs)]
        same = [torch.equal(a, b) for a, b in zip(outputs(one), outputs(other), strict=True)]
        return not any(same) and not any(matters(small, m, x, one) for m in starved)


def outputs(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else value


def matters(model: nn.Module, layer: nn.Module, x: Tensor, before: Tensor | tuple[Tensor, ...]) -> bool:
    hook = layer.register_forward_hook(lambda m, args, output: output + 1)
    after = model(x)
    hook.remove()
    return any(not torch.equal(a, b) for a, b in zip(outputs(before), outputs(after), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_sets_that_may_vanish_are_known(kind: str) -> None:
    _, groups, _ = subject(kind)
    largest, alone = KINDS[kind]
    assert set(vanishing(groups)) == alone
    possible = [set(names) for names in subsets(sorted(alone)) if groups.may_vanish(names)]
    assert {" ".join(sorted(s)) for s in possible if not any(s < other for other in possible)} == largest


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "beside"])
def test_a_set_may_vanish_where_all_that_is_left_depends_on_the_input(kind: str) -> None:
    model, groups, x = subject(kind)
    for names in subsets(vanishing(groups)):
        assert groups.may_vanish(names) == leaves_something(model, groups, names, x), names


@pytest.mark.parametrize("kind", KINDS)
def test_what_may_vanish_is_exact_and_adds_nothing_to_the_file(kind: str, tmp_path: Path) -> None:
    model, groups, x = subject(kind)
    many = exporters.count_nodes(exporters.export_onnx(model, x, tmp_path / "dense.onnx"))
    plans = [Plan.of(groups, dict.fromkeys(names.split(), ())) for names in sorted(KINDS[kind][0])]
    assert all(verify(model, plan, x) < 1e-9 for plan in plans)
    small = shrink(model, plans[0])
    path = exporters.export_onnx(small, x, tmp_path / "small.onnx")
    assert exporters.check_parity(small, path, x).max_rel < 1e-4
    few = exporters.count_nodes(path)
    assert all(number <= many.get(operator, 0) for operator, number in few.items()), (few, many)


def test_a_plan_that_leaves_a_layer_with_constants_alone_is_refused() -> None:
    _, groups, _ = subject("chain")
    with pytest.raises(InputError, match=r"leave c\.inner\.weight with constants alone") as caught:
        Plan.of(groups, {"a.inner": (), "b.inner": ()})
    assert "a.inner, b.inner" in str(caught.value.where)


def test_the_answer_outlives_a_change_of_the_groups() -> None:
    _, groups, _ = subject("chain")
    left = dataclasses.replace(groups, items=tuple(g for g in groups if g.name != "c.inner"))
    assert left.may_vanish(["a.inner"]) and not left.may_vanish(["a.inner", "b.inner"])


class Placed(Net):
    """A network that takes values of its input for places, as marks cannot be."""

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return super().forward(x + x.flatten()[(0 * x.mean()).long().reshape(1)])


def test_where_the_input_cannot_be_marked_nothing_is_thought_to_depend_on_it() -> None:
    groups = find_groups(randomised(Placed("input")), torch.randn(2, 8, 8, 8))
    assert vanishing(groups) == ["a.inner", "b.inner"] and not groups.may_vanish(["a.inner", "b.inner"])


class Table(nn.Module):
    """Two layers that work on a buffer: what they return is the same for all inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.other, self.head = (
            nn.Linear(6, 8),
            nn.Linear(2, 12),
            nn.Linear(12, 8),
            nn.Linear(8, 3),
        )
        self.register_buffer("places", torch.randn(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x) + self.other(self.one(self.places).relu()))


def test_what_is_computed_once_from_parameters_does_not_vanish() -> None:
    assert vanishing(find_groups(Table().eval(), torch.randn(2, 5, 6))) == []


class Words(nn.Module):
    """A residual branch on an embedding: an input that cannot be marked."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.one, self.other, self.head = (
            nn.Embedding(9, 8), nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 3)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x)
        return self.head(x + self.other(self.one(x).relu()))


def test_branches_vanish_where_the_input_is_made_of_whole_numbers() -> None:
    assert vanishing(find_groups(Words().eval(), torch.randint(9, (2, 5)))) == ["one"]
