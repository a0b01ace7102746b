"""The exported file as a function of the widths."""

from __future__ import annotations

from pathlib import Path
from random import Random

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from compressor.budget.latency.skeleton import Skeleton, coded_widths
from compressor.structure import Plan, find_groups, shrink
from exporters.onnx import export_onnx


class Mixed(nn.Module):
    """Equally wide groups, a residual stream, a depthwise layer, a concatenation, a flattened map, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 1)
        self.norm, self.depthwise = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.join, self.hidden, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8 * 16, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.left(torch.relu(self.norm(self.depthwise(self.right(x)))))
        x = torch.relu(self.join(torch.cat([x, torch.relu(self.right(x))], 1)))
        return self.head(torch.relu(self.hidden(x.flatten(1))))


INPUTS = torch.randn(2, 3, 8, 8)


def export(model: nn.Module, path: Path) -> None:
    export_onnx(model, INPUTS, path)


def shapes(file: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Lengths of all weights, also of those that the file computes."""
    sizes = {t.name: numpy_helper.to_array(t) for t in file.graph.initializer if t.data_type == onnx.TensorProto.INT64}
    found = {t.name: tuple(t.dims) for t in file.graph.initializer}
    fills = [node for node in file.graph.node if node.op_type == "ConstantOfShape"]
    return found | {node.output[0]: tuple(sizes[node.input[0]].tolist()) for node in fills}


def test_it_has_the_shapes_of_a_real_export(tmp_path: Path) -> None:
    model = Mixed().eval()
    groups = find_groups(model, INPUTS)
    skeleton = Skeleton.learn(model, groups, export)
    rng = Random(1)
    for _ in range(3):
        widths = {g.name: rng.randrange(g.step, g.size + 1, g.step) for g in groups}
        plan = Plan.of(groups, {g.name: g.balanced(range(g.size))[: widths[g.name]] for g in groups})
        export(shrink(model, plan), tmp_path / "real.onnx")
        hollow = onnx.load_from_string(skeleton.at(widths))
        onnx.checker.check_model(hollow, full_check=True)
        real = shapes(onnx.load(tmp_path / "real.onnx"))
        ours = shapes(hollow)
        assert {name: ours[name] for name in real} == real


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    model = Mixed().eval()
    groups = find_groups(model, INPUTS)
    skeleton = Skeleton.learn(model, groups, export)
    skeleton.save(tmp_path)
    widths = coded_widths(groups)[0]
    assert Skeleton.load(tmp_path).at(widths) == skeleton.at(widths)


def test_no_two_equal_groups_share_a_code() -> None:
    groups = find_groups(Mixed().eval(), INPUTS)
    choices = coded_widths(groups)
    codes = [(g.size, *(choice[g.name] for choice in choices)) for g in groups]
    assert len(set(codes)) == len(codes)
    assert all(0 < choice[g.name] < g.size for choice in choices for g in groups)
