"""torch-pruning's graph as a referee: where it works, it couples the same layers as ours, which only watches."""

from __future__ import annotations

import copy

import pytest
import torch
import torch_pruning as tp
from torch import nn

from compressor.structure import ChannelGroup
from tests.structure.examined import published

IMAGE = torch.zeros(1, 3, 64, 64)


def ours(group: ChannelGroup) -> set[tuple[str, str]]:
    """Layers, and the side on which they are cut."""
    return {(part.layer, "in" if part.role == "consumer" else "out") for part in group.slices}


def theirs(graph: tp.DependencyGraph, model: nn.Module, layer: str) -> set[tuple[str, str]]:
    """What torch-pruning cuts with the first channel of a layer."""
    names = {module: name for name, module in model.named_modules()}
    module = model.get_submodule(layer)
    coupled = graph.get_pruning_group(module, graph.get_pruner_of_module(module).prune_out_channels, [0])
    return {
        (names[item.target.module], "out" if graph.is_out_channel_pruning_fn(item.handler) else "in")
        for item, _ in coupled
        if item.target.module in names
    }


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "regnet_y_400mf", "squeezenet1_1", "densenet121"])
def test_groups_are_those_of_torch_pruning(name: str) -> None:
    model, groups = copy.deepcopy(published(name).model), published(name).groups
    graph = tp.DependencyGraph().build_dependency(model, IMAGE)
    assert len(groups)
    for group in groups:
        assert ours(group) == theirs(graph, model, group.producers[0]), group.name
