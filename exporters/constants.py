"""Branches that compute the same value everywhere: folded, and what they added goes into the layer before.

A layer that has lost all its inputs leaves a tensor of which every position is equal. Such a tensor is carried along as
a small array that broadcasts to it, through the operators that work element by element, up to where it is added to
another.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants

Array = NDArray[Any]

ELEMENTWISE = {
    *("Add", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Mul", "Neg"),
    *("Pow", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub", "Tanh", "Identity"),
}
BINARY = {"Add", "Div", "Mul", "Sub"}
POOLING = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Resize"}
"""What makes of equal values over an area the same value."""
REDUCING: dict[str, Callable[..., Any]] = {"ReduceMax": np.max, "ReduceMean": np.mean, "ReduceMin": np.min}
"""What makes of equal values along an axis the same value."""
RESHAPING = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}
GROWING = {"ConstantOfShape", "EyeLike", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile"}


def fold_computed_weights(model: ir.Model) -> None:
    """Compute what depends on weights alone, whatever its size (standardised weights), in place.

    The exporter's own folding stops at tensors of a few thousand elements, and what is left runs at every inference.
    """
    limits = {"input_size_limit": sys.maxsize, "output_size_limit": sys.maxsize}
    fold_constants(model, should_fold=_is_computed_weight, **limits)
    RemoveUnusedNodesPass()(model)


def _is_computed_weight(node: ir.Node) -> bool:
    if node.op_type in GROWING or node.op_type.startswith("Random") or not node.inputs:
        return False
    return all(value is None or value.const_value is not None for value in node.inputs)


def fold_constant_branches(model: ir.Model) -> None:
    """Fold every tensor that is equal at all positions, in place."""
    graph = model.graph
    small: dict[ir.Value, Array] = {}
    for node in graph:
        arrays = _split(node, small) if node.op_type == "Split" else [_uniform(node, small, model.opset_imports[""])]
        small |= {v: array for v, array in zip(node.outputs, arrays, strict=False) if array is not None}
    for value, array in small.items():
        for node, index in value.uses():
            if node.op_type in BINARY and node.outputs[0] not in small:
                _narrow(graph, node, index, array)
    RemoveUnusedNodesPass()(model)


def _uniform(node: ir.Node, small: dict[ir.Value, Array], opset: int) -> Array | None:
    """The array that broadcasts to what the node computes, where that is equal at all positions."""
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        number = np.float32(0) if fill is None else fill.as_tensor().numpy().reshape(())
        rank = node.inputs[0].shape[0] if node.inputs[0] is not None and node.inputs[0].shape else None
        return np.full([1] * rank, number) if isinstance(rank, int) else None
    if not any(value in small for value in node.inputs if value is not None):
        return None
    first = None if node.inputs[0] is None else small.get(node.inputs[0])
    if node.op_type in POOLING:
        return first if first is not None and first.ndim > 2 and _keeps(node, first) else None
    if node.op_type in RESHAPING or node.op_type == "Transpose":
        return None if first is None else _rearranged(node, first)
    known = [_known(value, small) for value in node.inputs]
    if node.op_type == "Concat":
        return _joined(node, known)
    if any(array is None for array, value in zip(known, node.inputs, strict=True) if value is not None):
        return None
    if node.op_type in _FOLDED:
        return _FOLDED[node.op_type](node, known)
    if node.op_type not in ELEMENTWISE:
        return None
    if all(a is None or v in small or a.ndim <= 1 or 1 in a.shape for a, v in zip(known, node.inputs, strict=True)):
        return _evaluated(node, known, opset)
    return None


def _keeps(node: ir.Node, array: Array) -> bool:
    """Whether a pool over an area of equal values returns them: not where it counts the zeros around it."""
    counts = "count_include_pad" in node.attributes and node.attributes["count_include_pad"].as_int()
    padded = "pads" in node.attributes and any(node.attributes["pads"].as_ints())
    return set(array.shape[2:]) == {1} and not (counts and padded)


def _split(node: ir.Node, small: dict[ir.Value, Array]) -> list[Array]:
    """The parts of a tensor."""
    array, sizes = small.get(node.inputs[0]), [v.shape for v in node.outputs]  # type: ignore[arg-type]
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    if array is None or array.shape[axis] == 1:
        return [] if array is None else [array] * len(sizes)
    ends = [shape[axis] if shape is not None else None for shape in sizes]
    if not all(isinstance(end, int) for end in ends):
        return []
    return np.split(array, np.cumsum(np.array(ends[:-1], dtype=int)), axis)


def _sliced(node: ir.Node, known: list[Array | None]) -> Array | None:
    """The array without what is cut off, where it differs along an axis."""
    array, starts, ends, axes, steps = (*known, None, None)[:5]
    assert array is not None and starts is not None and ends is not None
    axes = np.arange(len(starts)) if axes is None else axes
    for n, axis in enumerate(axes.tolist()):
        step = 1 if steps is None else int(steps[n])
        if array.shape[axis] > 1:
            if step < 0:
                return None
            array = array[(slice(None),) * (axis % array.ndim) + (slice(int(starts[n]), int(ends[n]), step),)]
    return array


def _reduced(node: ir.Node, known: list[Array | None]) -> Array | None:
    array, axes = (*known, None)[:2]
    assert array is not None
    if axes is None and "axes" in node.attributes:
        axes = np.array(node.attributes["axes"].as_ints())
    if axes is None or not len(axes):
        return None
    keep = "keepdims" not in node.attributes or bool(node.attributes["keepdims"].as_int())
    return np.asarray(REDUCING[node.op_type](array, axis=tuple(axes.tolist()), keepdims=keep), dtype=array.dtype)


def _joined(node: ir.Node, known: list[Array | None]) -> Array | None:
    """Constants one beside the other, as rolling leaves them; equal ones are the same constant over a longer axis."""
    axis, arrays = node.attributes["axis"].as_int(), [array for array in known if array is not None]
    if len(arrays) < len(known) or len({array.ndim for array in arrays}) > 1:
        return None
    if arrays[0].shape[axis] == 1 and all(np.array_equal(array, arrays[0]) for array in arrays):
        return arrays[0]
    sizes = [value.shape[axis] for value in node.inputs if value is not None and value.shape is not None]
    around = {tuple(np.delete(array.shape, axis)) for array in arrays}
    if sizes != [array.shape[axis] for array in arrays] or len(around) > 1:
        return None
    return np.concatenate(arrays, axis)


def _layer_normalised(node: ir.Node, known: list[Array | None]) -> Array | None:
    x, weight, bias = (*known, None)[:3]
    assert x is not None and weight is not None
    if weight.ndim != 1:
        return None
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    x = np.broadcast_to(x, (*x.shape[:-1], weight.size))
    scale = weight / np.sqrt(x.var(axis=-1, keepdims=True) + epsilon)
    shift = 0.0 if bias is None else bias
    return np.asarray(((x - x.mean(axis=-1, keepdims=True)) * scale + shift).astype(x.dtype))


def _rearranged(node: ir.Node, array: Array) -> Array | None:
    """The array in the shape that the node gives it, where the axis along which it differs stays an axis."""
    if node.op_type == "Transpose":
        return array.transpose(node.attributes["perm"].as_ints()) if "perm" in node.attributes else array.T
    assert node.inputs[0] is not None
    before, after = node.inputs[0].shape, node.outputs[0].shape
    varied = [axis for axis, size in enumerate(array.shape) if size > 1]
    if before is None or after is None or len(varied) > 1 or len(before) != array.ndim:
        return None
    shape = [1] * len(after)
    if varied:
        axis = varied[0]
        from_end = axis - len(before)
        if before[: axis + 1] == after[: axis + 1]:
            shape[axis] = array.size
        elif before[axis:] == after[from_end:]:
            shape[from_end] = array.size
        else:
            return None
    return array.reshape(shape)


def _known(value: ir.Value | None, small: dict[ir.Value, Array]) -> Array | None:
    if value is None:
        return None
    if value in small:
        return small[value]
    return value.const_value.numpy() if value.const_value is not None else None


def _normalised(node: ir.Node, known: list[Array | None]) -> Array | None:
    x, weight, bias, mean, var = known
    assert x is not None and weight is not None and bias is not None and mean is not None and var is not None
    if x.ndim < 2:
        return None
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    shape = (1, -1, *[1] * (x.ndim - 2))
    scale = (weight / np.sqrt(var + epsilon)).reshape(shape)
    return np.asarray(((x - mean.reshape(shape)) * scale + bias.reshape(shape)).astype(x.dtype))


_FOLDED: dict[str, Callable[[ir.Node, list[Array | None]], Array | None]] = {
    "BatchNormalization": _normalised,
    "LayerNormalization": _layer_normalised,
    "Slice": _sliced,
    **dict.fromkeys(REDUCING, _reduced),
}


def _evaluated(node: ir.Node, known: list[Array | None], opset: int) -> Array:
    names = [f"in{i}" if array is not None else "" for i, array in enumerate(known)]
    proto = ir.to_proto(node)
    copy = helper.make_node(proto.op_type, names, ["out"])
    copy.attribute.extend(proto.attribute)
    given = [(n, a) for n, a in zip(names, known, strict=True) if a is not None]
    inputs = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in given]
    output = helper.make_tensor_value_info("out", inputs[0].type.tensor_type.elem_type, None)
    graph = helper.make_graph([copy], "one", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    results: Any = ReferenceEvaluator(model).run(None, dict(given))
    return np.asarray(results[0])


def _narrow(graph: ir.Graph, node: ir.Node, index: int, array: Array) -> None:
    """Let an operator take the small array instead of the large tensor; a sum goes into the layer before if it can."""
    other, result = node.inputs[1 - index], node.outputs[0]
    if other is None or other.shape is None or result.shape is None or other.shape != result.shape:
        return
    if node.op_type == "Add" and (not array.any() or _into_bias(graph, other, array)):
        ir.convenience.replace_all_uses_with(result, other, replace_graph_outputs=True)
    elif node.op_type == "Add" and array.ndim > 2 and other.shape[1] == array.shape[1] == array.size:
        _as_convolution(graph, node, other, array)
    else:
        node.replace_input_with(index, _initializer(graph, f"{result.name}_constant", array))


def _as_convolution(graph: ir.Graph, node: ir.Node, value: ir.Value, array: Array) -> None:
    """Add a value per channel by the bias of a convolution that changes nothing else: ONNX Runtime keeps that in the
    blocked layout of its neighbours, and takes a sum with a constant out of it.
    """
    result, channels = node.outputs[0], array.size
    weight = _initializer(graph, f"{result.name}_weight", np.ones((channels, 1, *[1] * (array.ndim - 2)), array.dtype))
    bias = _initializer(graph, f"{result.name}_bias", array.reshape(-1))
    same = ir.node("Conv", [value, weight, bias], {"group": channels}, name=f"{node.name}_constant")
    same.outputs[0].shape, same.outputs[0].type = result.shape, result.type
    graph.insert_before(node, same)
    ir.convenience.replace_all_uses_with(result, same.outputs[0], replace_graph_outputs=True)
    same.outputs[0].name = f"{result.name}_shifted"


def _into_bias(graph: ir.Graph, value: ir.Value, array: Array) -> bool:
    """Add a value per channel to the bias of the convolution that makes `value`, if nothing else reads it."""
    node = value.producer()
    if node is None or len(value.uses()) > 1 or value.is_graph_output():
        return False
    if node.op_type == "Add":
        return any(_into_bias(graph, v, array) for v in node.inputs if v is not None and v.shape == value.shape)
    if node.op_type != "Conv" or array.ndim < 2 or array.size not in (1, array.shape[1]):
        return False
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or weight.const_value is None or (bias is not None and bias.const_value is None):
        return False
    channels = weight.const_value.numpy().shape[0]
    before = np.zeros(channels, array.dtype) if bias is None else bias.const_value.numpy()  # type: ignore[union-attr]
    after = _initializer(graph, f"{value.name}_bias", before + np.broadcast_to(array.reshape(-1), channels))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, after)
    return True


def _initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    while name in graph.initializers:
        name += "_"
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value
