"""From a module to an ONNX file that holds what inference needs and nothing else."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from google.protobuf.message import DecodeError
from onnx import version_converter
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnxscript.rewriter import rewrite
from torch import nn

from exporters.constants import fold_computed_weights, fold_constant_branches
from exporters.errors import CURE, ExportError, InvalidModelError
from exporters.inputs import ExampleInputs, as_call, evaluating, is_batched, take
from exporters.rectifiers import remove_idle_rectifiers

OLDEST_OPSET = 17
NATIVE_OPSET = 18
"""The oldest opset that the exporter writes by itself."""
SINGLE_FILE_LIMIT = 2**31 - 2**20
"""Bytes of weights above which they go to a second file: protobuf messages end at 2 GiB."""
FOLDABLE = ("Conv", "ConvTranspose", "Gemm")


def export_onnx(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | Path,
    *,
    opset: int = 20,
    dynamic_batch: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write `model`, in evaluation mode, as an ONNX file with batch norms folded and constants computed.

    The module is left as it was. The file appears whole or not at all; weights of more than 2 GiB go to
    `<path>.data` beside it.

    Args:
        model: The module to export.
        example_inputs: A tensor of shape (batch, ...), a tuple of tensors, or a mapping of keyword arguments. The
            first dimension of the first input, and of every other one that is as long, is the batch.
        path: The file to write.
        opset: Version of the operator set, 17 or newer.
        dynamic_batch: Whether the file takes any batch size; otherwise only that of `example_inputs`.
        metadata: Text that is stored in the file, by key.

    Returns:
        The path of the file.

    Raises:
        ExportError: the module cannot be expressed in ONNX, or not in that opset.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> path = exporters.export_onnx(model, torch.randn(2, 3, 8, 8), "conv.onnx", metadata={"origin": "example"})
        >>> exporters.count_nodes(path)
        {'Conv': 1, 'Relu': 1}
    """
    path, newest = Path(path), onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ExportError(f"opset {opset} is not supported", cure=f"choose one from {OLDEST_OPSET} to {newest}")
    with evaluating(model), _quiet():
        graph = _clean(_capture(model, example_inputs, opset, dynamic_batch), opset)
    graph.metadata_props.update(metadata or {})
    _write(graph, path)
    return path


def count_nodes(path: str | Path) -> dict[str, int]:
    """How often every operator occurs in the main graph of the file, the most frequent first.

    Raises:
        InvalidModelError: the file is not a readable ONNX model.

    Example:
        >>> path = exporters.export_onnx(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(2, 4), "net.onnx")
        >>> exporters.count_nodes(path)
        {'Gemm': 1, 'Relu': 1}
    """
    return dict(Counter(node.op_type for node in _read(path).graph.node).most_common())


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of the file.

    Raises:
        InvalidModelError: the file is not a readable ONNX model.

    Example:
        >>> path = exporters.export_onnx(nn.Linear(4, 2), torch.randn(2, 4), "net.onnx", metadata={"origin": "example"})
        >>> exporters.read_metadata(path)
        {'origin': 'example'}
    """
    return {entry.key: entry.value for entry in _read(path).metadata_props}


def _capture(model: nn.Module, example_inputs: ExampleInputs, opset: int, dynamic_batch: bool) -> ir.Model:
    args, kwargs = as_call(example_inputs, model)
    tensors = [*args, *kwargs.values()]
    batched = [dynamic_batch and is_batched(tensor, tensors) for tensor in tensors]
    # A batch of 1 would be taken for a constant, so 2 stands for any.
    tensors = [take(t, 2) if free else t for t, free in zip(tensors, batched, strict=True)]
    args, kwargs = tuple(tensors[: len(args)]), dict(zip(kwargs, tensors[len(args) :], strict=True))
    shapes = torch.export.ShapesCollection()
    batch = torch.export.Dim("batch")
    for tensor in (t for t, free in zip(tensors, batched, strict=True) if free):
        shapes[tensor] = {0: batch}
    try:
        program = torch.onnx.export(
            model,
            args,
            kwargs=kwargs,
            dynamo=True,
            opset_version=max(opset, NATIVE_OPSET),
            dynamic_shapes=shapes.dynamic_shapes(model, args, kwargs) if dynamic_batch else None,
            verbose=False,
        )
    except Exception as error:  # the exporter raises whatever the module's code or any of its own layers raises
        raise _explained(error) from error
    assert program is not None
    for value, free in zip(program.model.graph.inputs, batched, strict=True):
        if free and (value.shape is None or isinstance(value.shape[0], int)):
            raise ExportError(
                "the model's code fixes the batch size", where=value.name, cure="export with dynamic_batch off"
            )
    return program.model


def _explained(error: BaseException) -> ExportError:
    """The innermost cause in one line, and the operator's name where there is one."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    operator = re.search(r"op='([\w.:]+)'", text)
    return ExportError(
        f"the model cannot be exported: {text.splitlines()[0]}",
        where=operator.group(1) if operator else None,
        cure="express this part of the model with operators that ONNX has",
    )


def _clean(model: ir.Model, opset: int) -> ir.Model:
    """Fold what the exporter left, drop its source locations, and go down to an opset that it does not write."""
    _unshare(model.graph)
    rewrite(model)
    _keep_padding(model.graph)
    fold_constant_branches(model)
    remove_idle_rectifiers(model)
    fold_computed_weights(model)
    ClearMetadataAndDocStringPass()(model)
    return model if opset >= NATIVE_OPSET else _converted(model, opset)


def _keep_padding(graph: ir.Graph) -> None:
    """Pad max pools by the smallest number above zero where it is zero.

    ONNX Runtime merges a padding by zero into the pool that follows, whose own padding is minus infinity: another
    result wherever a window at the border holds negative values only.
    """
    pads = [use.node for node in graph if node.op_type == "Pad" for use in node.outputs[0].uses()]
    for pool in [node for node in pads if node.op_type == "MaxPool"]:
        pad = pool.inputs[0].producer() if pool.inputs[0] is not None else None
        fill = pad.inputs[2] if pad is not None and len(pad.inputs) > 2 else None
        if pad is None or fill is None or fill.const_value is None or fill.const_value.numpy() != 0:
            continue
        tiny = np.finfo(fill.const_value.dtype.numpy()).tiny
        value = ir.Value(name=f"{pad.name}_fill", const_value=ir.tensor(tiny))
        graph.register_initializer(value)
        pad.replace_input_with(2, value)


def _converted(model: ir.Model, opset: int) -> ir.Model:
    for node in model.graph:  # a default that older opsets do not know, and the converter does not remove
        if "noop_with_empty_axes" in node.attributes and not node.attributes["noop_with_empty_axes"].as_int():
            del node.attributes["noop_with_empty_axes"]
    try:
        proto = version_converter.convert_version(ir.to_proto(model), opset)
        onnx.checker.check_model(proto)
    except (RuntimeError, version_converter.ConvertError, onnx.checker.ValidationError) as error:
        raise ExportError(
            f"the model cannot be converted to opset {opset}: {str(error).splitlines()[0]}",
            cure=f"export with opset {NATIVE_OPSET} or newer",
        ) from error
    return ir.from_proto(proto)


def _unshare(graph: ir.Graph) -> None:
    """Give every layer that a batch norm follows weights of its own; the folding leaves shared ones alone."""
    for norm in [node for node in graph if node.op_type == "BatchNormalization"]:
        layer = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if layer is None or layer.op_type not in FOLDABLE or len(layer.outputs[0].uses()) > 1:
            continue
        for index, value in enumerate(layer.inputs[1:], start=1):
            if value is not None and value.is_initializer() and len(value.uses()) > 1:
                copy = ir.Value(
                    name=f"{value.name}_{layer.name}", type=value.type, shape=value.shape, const_value=value.const_value
                )
                graph.register_initializer(copy)
                layer.replace_input_with(index, copy)


def _write(model: ir.Model, path: Path) -> None:
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    external = f"{path.name}.data" if size > SINGLE_FILE_LIMIT else None
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as directory:
        temporary = Path(directory, path.name)
        ir.save(model, temporary, external_data=external)
        onnx.checker.check_model(str(temporary), full_check=True)
        if external:
            os.replace(temporary.with_name(external), path.with_name(external))
        os.replace(temporary, path)


def _read(path: str | Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError) as error:
        raise InvalidModelError(f"not a readable ONNX model ({error})", where=str(path), cure=CURE) from error
    if not model.graph.node:
        raise InvalidModelError("not an ONNX model: it has no nodes", where=str(path), cure=CURE)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter from the user: its failures reach them as exceptions."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
