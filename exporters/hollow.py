"""A network without its weights: the same operators on the same shapes, in a file of some kilobytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import onnx
from onnx import helper

SMALL = 16
"""Constants of no more elements than this stay as they are: sizes, axes, scalars."""


def hollow(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None = None) -> bytes:
    """Return `model` with every weight replaced by a constant of its shape, each of another value.

    The runtime computes the constants when it opens the file, and then runs what it would run with the weights. Their
    values differ, because it keeps equal constants once only, which lets them stay in its caches.

    Args:
        model: The network; it is left as it was.
        shapes: Other shapes for some weights, by name.
    """
    other = shapes or {}
    fills, constants = list[onnx.NodeProto](), list[onnx.TensorProto]()
    for tensor in model.graph.initializer:
        shape = list(other.get(tensor.name, tensor.dims))
        if tensor.data_type != onnx.TensorProto.FLOAT or prod(tensor.dims) <= SMALL and tensor.name not in other:
            constants.append(tensor)
            continue
        value = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [1e-3 + 1e-6 * len(fills)])
        size = f"{tensor.name}.shape"
        constants.append(helper.make_tensor(size, onnx.TensorProto.INT64, [len(shape)], shape))
        fills.append(helper.make_node("ConstantOfShape", [size], [tensor.name], f"{tensor.name}.fill", value=value))
    graph = helper.make_graph(
        [*fills, *model.graph.node], model.graph.name, model.graph.input, model.graph.output, constants
    )
    empty = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    empty.functions.extend(model.functions)
    return bytes(empty.SerializeToString())
