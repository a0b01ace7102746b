from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, save

import exporters
from exporters import runtime
from tests.exporters.models import TwoInputs


def identity(path: Path, shape: list[int | str], kind: int = TensorProto.FLOAT) -> ort.InferenceSession:
    x, y = (helper.make_tensor_value_info(name, kind, shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return runtime.create_session(path)


@pytest.mark.parametrize("content", [None, b"", b"PK not a model", b"\x08\x07\x12\x04torch"])
def test_file_that_is_not_a_model_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(exporters.InvalidModelError, match="broken.onnx"):
        exporters.create_session(path)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = exporters.export_onnx(TwoInputs(), (torch.ones(2, 4), torch.ones(2, 4)), tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(exporters.InvalidModelError, match="m.onnx"):
        exporters.create_session(path)


def test_unknown_provider_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(exporters.ProviderUnavailableError, match="cpu, cuda"):
        exporters.create_session(tmp_path / "m.onnx", provider="npu")


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this onnxruntime has CUDA")
def test_cuda_is_refused_where_it_is_missing(tmp_path: Path) -> None:
    identity(tmp_path / "m.onnx", [1])
    with pytest.raises(exporters.ProviderUnavailableError, match="onnxruntime-gpu"):
        exporters.create_session(tmp_path / "m.onnx", provider="cuda")


def test_fall_back_to_another_provider_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity(tmp_path / "m.onnx", [1])
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda self: ["OtherExecutionProvider"])
    with pytest.raises(exporters.ProviderUnavailableError, match="OtherExecutionProvider"):
        exporters.create_session(tmp_path / "m.onnx")


def test_threads_are_pinned(tmp_path: Path) -> None:
    identity(tmp_path / "m.onnx", [1])
    options = exporters.create_session(tmp_path / "m.onnx", threads=2).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)


def test_thousands_of_threads_are_refused(tmp_path: Path) -> None:
    exporters.export_onnx(torch.nn.Linear(2, 2), torch.randn(1, 2), tmp_path / "linear.onnx")
    with pytest.raises(exporters.ExportError, match="100000 threads"):
        exporters.create_session(tmp_path / "linear.onnx", threads=100_000)


def test_part_of_a_core_is_enough_for_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "usable_cores", lambda: 0.01)
    identity(tmp_path / "m.onnx", [1])
    assert exporters.create_session(tmp_path / "m.onnx").get_session_options().intra_op_num_threads == 1
    with pytest.raises(exporters.ExportError, match="33 threads are too many for 0.01 cores"):
        exporters.create_session(tmp_path / "m.onnx", threads=33)


def test_random_inputs_have_the_declared_shape_and_type(tmp_path: Path) -> None:
    session = identity(tmp_path / "m.onnx", ["batch", 3, 2])
    first, again = (exporters.random_inputs(session, 4, seed=1)["x"] for _ in range(2))
    assert first.shape == (4, 3, 2) and first.dtype == np.float32
    assert np.array_equal(first, again) and first.std() > 0


def test_whole_numbers_are_made_up_too(tmp_path: Path) -> None:
    session = identity(tmp_path / "m.onnx", ["batch", 3], TensorProto.INT64)
    assert exporters.random_inputs(session, 2)["x"].dtype == np.int64


def test_other_batch_than_the_fixed_one_is_refused(tmp_path: Path) -> None:
    session = identity(tmp_path / "m.onnx", [2, 3])
    with pytest.raises(exporters.ExportError, match="batches of 2 only"):
        exporters.random_inputs(session, 4)


def test_unknown_dimension_is_named_unless_given(tmp_path: Path) -> None:
    session = identity(tmp_path / "m.onnx", ["batch", "height"])
    with pytest.raises(exporters.ExportError, match="height"):
        exporters.random_inputs(session, 1)
    assert exporters.random_inputs(session, 1, dims={"height": 7})["x"].shape == (1, 7)


def test_environment_is_json() -> None:
    found = json.loads(json.dumps(exporters.environment()))
    assert found["cores"] >= found["usable_cores"] > 0 and "cpu_quota" in found
    assert found["onnxruntime"] == ort.__version__
