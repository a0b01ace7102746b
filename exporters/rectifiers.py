"""Rectifiers that change nothing, because no value that they get is below zero.

A residual branch that adds nothing leaves one rectifier after another, perhaps with a padded shortcut between them.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

RECTIFIERS = {"Relu", "Sigmoid", "Softmax", "Abs", "Exp", "Softplus", "HardSigmoid"}
"""What returns nothing below zero."""
KEEPING = {
    *("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean", "ReduceMax", "ReduceSum"),
    *("Dropout", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
}
"""What returns nothing below zero where its first input holds nothing below zero."""
JOINING = {"Add", "Concat", "Mul"}
"""What returns nothing below zero where none of its inputs holds anything below zero."""


def remove_idle_rectifiers(model: ir.Model) -> None:
    """Remove rectifiers after values that are zero or more, in place."""
    positive: set[ir.Value] = set()
    for node in model.graph:
        if node.op_type == "Relu" and node.inputs[0] in positive:
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0], replace_graph_outputs=True)
            continue
        if _is_positive(node, positive):
            positive.update(node.outputs)
    RemoveUnusedNodesPass()(model)


def _is_positive(node: ir.Node, positive: set[ir.Value]) -> bool:
    if node.op_type in RECTIFIERS:
        return True
    if node.op_type == "Pad":
        return node.inputs[0] in positive and _pads_with_zeros(node)
    if node.op_type in KEEPING:
        return node.inputs[0] in positive
    return node.op_type in JOINING and all(value in positive for value in node.inputs)


def _pads_with_zeros(node: ir.Node) -> bool:
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    return fill is None or (fill.const_value is not None and bool((fill.const_value.numpy() >= 0).all()))
