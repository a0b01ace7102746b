from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import exporters
import exporters.onnx
from tests.exporters.models import Residual, Shared, TwoInputs, with_statistics

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
NEEDED = {"Conv", "Relu", "Add", "ReduceMean", "GlobalAveragePool", "Reshape", "Flatten", "Gemm"}


def input_shapes(path: Path) -> list[list[object]]:
    return [node.shape for node in ort.InferenceSession(str(path)).get_inputs()]


def test_batch_norms_are_folded_and_nothing_is_left_over(tmp_path: Path) -> None:
    path = exporters.export_onnx(with_statistics(Residual()), IMAGE, tmp_path / "m.onnx")
    nodes = exporters.count_nodes(path)
    assert nodes["Conv"] == 2 and set(nodes) <= NEEDED
    graph = onnx.load(str(path)).graph
    used = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= used


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (Shared(), IMAGE),
        (nn.Sequential(nn.ConvTranspose2d(3, 6, 2, groups=3), nn.BatchNorm2d(6)), IMAGE),
        (nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5)), IMAGE[:, 0, 0]),
    ],
    ids=["shared", "transposed", "linear"],
)
def test_batch_norm_is_folded_into_every_kind_of_layer(model: nn.Module, example: torch.Tensor, tmp_path: Path) -> None:
    model = with_statistics(model)
    path = exporters.export_onnx(model, example, tmp_path / "m.onnx")
    assert "BatchNormalization" not in exporters.count_nodes(path)
    assert exporters.check_parity(model, path, example).max_rel < 1e-5


def test_batch_norm_behind_a_branch_stays_and_is_right(tmp_path: Path) -> None:
    class Branch(Shared):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y + self.first(y)

    model = with_statistics(Branch())
    path = exporters.export_onnx(model, IMAGE, tmp_path / "m.onnx")
    assert exporters.count_nodes(path)["BatchNormalization"] == 1
    assert exporters.check_parity(model, path, IMAGE).max_rel < 1e-5


def test_dynamic_batch_comes_from_a_single_example(tmp_path: Path) -> None:
    path = exporters.export_onnx(Residual(), IMAGE, tmp_path / "m.onnx")
    assert input_shapes(path) == [["batch", 3, 8, 8]]


def test_fixed_batch_is_that_of_the_example(tmp_path: Path) -> None:
    path = exporters.export_onnx(Residual(), IMAGE.expand(5, -1, -1, -1), tmp_path / "m.onnx", dynamic_batch=False)
    assert input_shapes(path) == [[5, 3, 8, 8]]


@pytest.mark.parametrize("by_name", [False, True])
def test_several_inputs_and_a_dict_of_outputs(by_name: bool, tmp_path: Path) -> None:
    x, y = torch.randn(2, 4), torch.randn(2, 4)
    example = {"x": x, "y": y} if by_name else (x, y)
    model = TwoInputs()
    path = exporters.export_onnx(model, example, tmp_path / "m.onnx")
    assert input_shapes(path) == [["batch", 4], ["batch", 4]]
    assert exporters.check_parity(model, path, example).max_rel < 1e-5


def test_an_input_without_the_batch_keeps_its_shape(tmp_path: Path) -> None:
    class Biased(nn.Module):
        def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
            return x + bias

    example = (torch.randn(2, 4), torch.randn(4))
    path = exporters.export_onnx(Biased(), example, tmp_path / "m.onnx")
    assert input_shapes(path) == [["batch", 4], [4]]
    assert exporters.check_parity(Biased(), path, example).max_abs == 0


@pytest.mark.parametrize("opset", [17, 18, 22])
def test_opset_is_the_one_asked_for(opset: int, tmp_path: Path) -> None:
    model = with_statistics(Residual())
    path = exporters.export_onnx(model, IMAGE, tmp_path / "m.onnx", opset=opset)
    assert [entry.version for entry in onnx.load(str(path)).opset_import] == [opset]
    assert exporters.check_parity(model, path, IMAGE).max_rel < 1e-5


def test_zeros_before_a_max_pool_stay_zeros(tmp_path: Path) -> None:
    """ONNX Runtime would merge them into the pool, which pads by minus infinity."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConstantPad2d(1, 0.0), nn.MaxPool2d(3, 2)).eval()
    path = exporters.export_onnx(model, IMAGE - 3, tmp_path / "m.onnx")
    assert exporters.check_parity(model, path, IMAGE - 3).max_rel <= 1e-4


class Standardised(nn.Conv2d):
    """A convolution that computes its weight."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def test_weights_that_are_computed_are_constants_whatever_their_size(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 128, 3), Standardised(128, 256, 3, padding=1)).eval()
    path = exporters.export_onnx(model, IMAGE, tmp_path / "m.onnx")
    assert exporters.count_nodes(path) == {"Conv": 2}
    assert exporters.check_parity(model, path, IMAGE).max_rel <= 1e-4


@pytest.mark.parametrize("opset", [16, 1000])
def test_opset_that_does_not_exist_is_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(exporters.ExportError, match=f"opset {opset}"):
        exporters.export_onnx(Residual(), IMAGE, tmp_path / "m.onnx", opset=opset)


def test_metadata_is_read_back(tmp_path: Path) -> None:
    path = exporters.export_onnx(Residual(), IMAGE, tmp_path / "m.onnx", metadata={"macs": "12"})
    assert exporters.read_metadata(path) == {"macs": "12"}


def test_file_tells_nothing_about_the_machine_that_wrote_it(tmp_path: Path) -> None:
    path = exporters.export_onnx(Residual(), IMAGE, tmp_path / "m.onnx")
    assert b".py" not in path.read_bytes()


def test_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = Residual().train()
    model.stem.eval()
    before = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exporters.export_onnx(model, IMAGE, tmp_path / "m.onnx")
    assert [module.training for module in model.modules()] == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_missing_operator_is_named_and_the_earlier_file_kept(tmp_path: Path) -> None:
    class Bessel(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    (tmp_path / "m.onnx").write_text("earlier")
    with pytest.raises(exporters.ExportError, match="bessel_j0"):
        exporters.export_onnx(Bessel(), IMAGE, tmp_path / "m.onnx")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["earlier"]


def test_code_that_fixes_the_batch_size_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) + 1 if x.shape[0] == 2 else x.flatten(1)

    with pytest.raises(exporters.ExportError, match="batch"):
        exporters.export_onnx(Fixed(), IMAGE, tmp_path / "m.onnx")


def test_exporter_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    exporters.export_onnx(Residual(), IMAGE, tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "") and not recwarn.list


def test_large_weights_go_to_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters.onnx, "SINGLE_FILE_LIMIT", 100)
    model = nn.Linear(100, 100)
    path = exporters.export_onnx(model, torch.randn(1, 100), tmp_path / "m.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert exporters.check_parity(model, path, torch.randn(2, 100)).max_rel < 1e-5


@pytest.mark.parametrize("content", [None, b"", b"<html>not a model</html>"])
@pytest.mark.parametrize("read", [exporters.count_nodes, exporters.read_metadata])
def test_file_that_is_not_a_model_is_named(read, content: bytes | None, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(exporters.InvalidModelError, match="broken.onnx"):
        read(path)


class Branch(nn.Module):
    """A residual block whose branch returns a constant, after a layer that ends in an activation or not."""

    def __init__(self, activation: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU() if activation else nn.Identity())
        self.norm, self.head = nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
        nn.init.uniform_(self.norm.bias)
        self.value = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        branch = torch.relu(self.norm(x.new_zeros(x.shape[0], 4, 8, 8) + self.value))
        return self.head(x + branch)


@pytest.mark.parametrize("activation", [False, True])
def test_a_constant_branch_is_folded(tmp_path: Path, activation: bool) -> None:
    model, x = Branch(activation).eval(), torch.randn(2, 3, 8, 8)
    path = exporters.export_onnx(model, (x,), tmp_path / "m.onnx")
    assert exporters.check_parity(model, path, (x,)).max_rel < 1e-5
    nodes = exporters.count_nodes(path)
    assert nodes == ({"Conv": 3, "Relu": 1} if activation else {"Conv": 2})
