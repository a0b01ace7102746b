"""The exported network at any choice of widths, without its weights and without exporting it again.

Which numbers in the file change with which widths is read off a few exports: every length, and every whole number among
the constants and attributes, that differs between them must be as long as some axis of the network's tensors.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Literal

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from compressor.budget.costs.axes import Axis, find_axes
from compressor.budget.costs.base import Widths
from compressor.errors import InputError
from compressor.structure.groups import Groups
from compressor.structure.plan import Plan
from compressor.structure.surgery.shrink import shrink
from compressor.structure.tensors import duplicate
from exporters.hollow import SMALL, hollow

EXPORTS = 3
"""How many exports are compared, so that groups of one size can have widths of their own."""
FILE, AXES = "skeleton.onnx", "axes.json"
ATTEMPTS = 50
"""How often widths are drawn for a group before it shares those of another one."""


@dataclass(frozen=True)
class Slot:
    """A whole number in the file: an axis of a constant, an element of one, or an element of a node's attribute."""

    kind: Literal["shape", "value", "attribute"]
    owner: str
    attribute: str
    index: int


class Skeleton:
    """The file of a network as a function of the widths.

    Attributes:
        file: The network at some widths; its weights do not matter.
        axes: The numbers that change with the widths, and the axes that they are as long as.
    """

    def __init__(self, file: onnx.ModelProto, axes: Mapping[Slot, Axis]) -> None:
        self.file, self.axes = file, axes

    @classmethod
    def learn(cls, model: nn.Module, groups: Groups, export: Callable[[nn.Module, Path], object]) -> Skeleton:
        """Find out which numbers change.

        Args:
            model: The dense network.
            groups: Its channel groups.
            export: Writes a network as an ONNX file.

        Raises:
            InputError: the exports differ by more than lengths, or in a number that no axis explains.
        """
        choices, shaken = coded_widths(groups), _shaken(model)
        files = []
        with TemporaryDirectory() as directory:
            for widths in choices:
                path = Path(directory, "network.onnx")
                kept = {g.name: g.balanced(range(g.size))[: widths.get(g.name, g.size)] for g in groups}
                export(shrink(shaken, Plan.of(groups, kept)), path)
                files.append(onnx.load(path, load_external_data=False))
        found = [dict(_numbers(file, _names(file, files[0]))) for file in files]
        if any(numbers.keys() != found[0].keys() for numbers in found):
            raise InputError(
                "its graph changes with its widths, so latencies at other widths cannot be predicted",
                where="model",
                cure="give a target in macs, params or size",
            )
        varying = {slot: [numbers[slot] for numbers in found] for slot in found[0]}
        varying = {slot: values for slot, values in varying.items() if len(set(values)) > 1}
        return cls(_light(files[0]), _explain(varying, files[0], choices, find_axes(model, groups)))

    def save(self, directory: Path) -> None:
        """Write it into a directory, from which `load` reads it."""
        onnx.save(self.file, str(directory / FILE))
        entries = [[dataclasses.asdict(slot), dataclasses.asdict(axis)] for slot, axis in self.axes.items()]
        (directory / AXES).write_text(json.dumps(entries))

    @classmethod
    def load(cls, directory: Path) -> Skeleton:
        """Read what `save` wrote."""
        entries = json.loads((directory / AXES).read_text())
        return cls(onnx.load(str(directory / FILE)), {Slot(**slot): Axis.of(axis) for slot, axis in entries})

    def at(self, widths: Widths) -> bytes:
        """The file at these widths, without weights."""
        file = onnx.ModelProto()
        file.CopyFrom(self.file)
        shapes = {tensor.name: list(tensor.dims) for tensor in file.graph.initializer}
        values = {tensor.name: tensor for tensor in file.graph.initializer}
        attributes = {(node.name, entry.name): entry for node in file.graph.node for entry in node.attribute}
        for slot, axis in self.axes.items():
            number = round(axis.length(widths))
            if slot.kind == "shape":
                shapes[slot.owner][slot.index] = number
            elif slot.kind == "attribute":
                _set(attributes[slot.owner, slot.attribute], slot.index, number)
            else:
                array = numpy_helper.to_array(values[slot.owner]).copy()
                array.reshape(-1)[slot.index] = number
                values[slot.owner].CopyFrom(numpy_helper.from_array(array, slot.owner))
        changed = {slot.owner for slot in self.axes if slot.kind == "shape"}
        return hollow(file, {name: shapes[name] for name in changed})


def _light(file: onnx.ModelProto) -> onnx.ModelProto:
    """The file without the contents of its weights."""
    for tensor in file.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and sum(tensor.dims) > SMALL:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return file


def coded_widths(groups: Groups) -> list[dict[str, int]]:
    """Choices of widths, all below the full one, of which no two groups of a size have the same, as far as possible."""
    rng, taken = Random(0), set[tuple[int, ...]]()
    choices: list[dict[str, int]] = [{} for _ in range(EXPORTS)]
    for group in groups:
        widths = range(group.step, group.size, group.step)
        if not widths:
            continue
        for _ in range(ATTEMPTS):
            code = (group.size, group.step, *(rng.choice(widths) for _ in range(EXPORTS)))
            if code not in taken and len(set(code[2:])) == min(EXPORTS, len(widths)):
                break
        taken.add(code)
        for choice, width in zip(choices, code[2:], strict=True):
            choice[group.name] = width
    return choices


def _shaken(model: nn.Module) -> nn.Module:
    """A copy of which no two weights are equal: the exporter would keep one of them only."""
    copy = duplicate(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*copy.parameters(), *copy.buffers()):
            if tensor.is_floating_point():
                tensor += 1e-3 * torch.rand(tensor.shape, generator=generator, dtype=torch.float32).to(tensor)
    return copy


def _names(file: onnx.ModelProto, other: onnx.ModelProto) -> dict[str, str]:
    """What nodes and constants of a file are called in another one, by their places in the graph."""
    names: dict[str, str] = {}
    for mine, its in zip(file.graph.node, other.graph.node, strict=False):
        if mine.op_type == its.op_type:
            names |= dict(zip((mine.name, *mine.input), (its.name, *its.input), strict=False))
    return names


def _numbers(file: onnx.ModelProto, names: Mapping[str, str]) -> Iterator[tuple[Slot, int]]:
    for tensor in file.graph.initializer:
        name = names.get(tensor.name, tensor.name)
        for index, length in enumerate(tensor.dims):
            yield Slot("shape", name, "", index), length
        if tensor.data_type == onnx.TensorProto.INT64 and sum(tensor.dims) <= SMALL:
            for index, value in enumerate(numpy_helper.to_array(tensor).reshape(-1).tolist()):
                yield Slot("value", name, "", index), value
    for node in file.graph.node:
        for entry in node.attribute:
            for index, value in enumerate([entry.i] if entry.type == onnx.AttributeProto.INT else entry.ints):
                yield Slot("attribute", names.get(node.name, node.name), entry.name, index), value


def _explain(
    varying: Mapping[Slot, Sequence[int]],
    file: onnx.ModelProto,
    choices: Sequence[Widths],
    axes: Mapping[tuple[str, int], Axis],
) -> dict[Slot, Axis]:
    """The axis behind every number that varies."""
    lengths = {at: [axis.length(widths) for widths in choices] for at, axis in axes.items()}
    readers = {name: node for node in file.graph.node for name in node.input}
    explained = {}
    for slot, values in varying.items():
        named = (slot.owner, slot.index) if slot.kind == "shape" else None
        near = set(readers[slot.owner].input) if slot.owner in readers else set(_inputs(file, slot.owner))
        fitting = [at for at, own in lengths.items() if _proportional(values, own)]
        if not fitting:
            raise InputError(
                f"{slot.owner}: no axis of the network explains the lengths {list(values)}",
                where="model",
                cure="give a target in macs, params or size, or put the layers around it into compress.keep",
            )
        best = min(fitting, key=lambda at: (at != named, lengths[at] != list(values), at[0] not in near))
        explained[slot] = axes[best].times(values[0] / lengths[best][0])
    return explained


def _inputs(file: onnx.ModelProto, name: str) -> Sequence[str]:
    return next((node.input for node in file.graph.node if node.name == name), ())


def _proportional(values: Sequence[int], lengths: Sequence[float]) -> bool:
    return all(abs(v * lengths[0] - length * values[0]) < 0.5 for v, length in zip(values, lengths, strict=True))


def _set(entry: onnx.AttributeProto, index: int, number: int) -> None:
    if entry.type == onnx.AttributeProto.INT:
        entry.i = number
    else:
        entry.ints[index] = number
