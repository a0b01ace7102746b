"""Dead units are brought back before training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.training.history import Activity
from compressor.training.revive import revive


class Block(nn.Module):
    """A residual block as most networks write it: what goes into the second rectifier is a sum."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, bias=False), nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.hidden, self.head, self.act = nn.Linear(6, 5), nn.Linear(5, 2), act
        nn.init.constant_(self.hidden.bias, 5.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        y += x
        return self.head(self.act(self.hidden(self.act(y).mean((2, 3)))))

    def firing(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return (self.eval().bn1(self.conv1(images)) > 0).double().mean((0, 2, 3))


ACTS = {
    "function": torch.relu,
    "in place": lambda x: F.relu(x, inplace=True),
    "method": lambda x: x.relu_(),
    "module": nn.ReLU(),
    "relu6": F.relu6,
    "module of relu6": nn.ReLU6(),
}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
def test_units_that_fire_too_rarely_are_raised_until_they_fire_often_enough(
    act: Callable[[Tensor], Tensor], images: Tensor
) -> None:
    model = Block(act).train()
    with torch.no_grad():
        model.bn1.bias[2], model.bn1.bias[4] = -50, -1.5
        model.hidden.bias[1] = -50
    before, biases = model.firing(images), model.bn1.bias.detach().clone()
    assert before[2] == 0 < before[4] < 0.1
    model.train()
    found = revive(model, (images,), 0.1)
    assert found == [Activity("bn1", 6, 1, 2), Activity("hidden", 5, 1, 1)]
    assert model.training and model.bn1.num_batches_tracked == 0
    after = model.firing(images)
    assert after[[2, 4]] == pytest.approx(0.1, abs=2e-3)
    others = [0, 1, 3, 5]
    assert torch.equal(model.bn1.bias[others], biases[others])
    again = revive(model, (images,), 0.1)
    assert [entry.dead for entry in again] == [0, 0]


def test_a_network_in_which_all_fire_stays_as_it_is(images: Tensor) -> None:
    model = Block(torch.relu)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert sum(entry.raised for entry in revive(model, (images,), 0.001)) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_other_functions_are_no_rectifiers(images: Tensor) -> None:
    assert revive(Block(torch.tanh), (images,), 0.1) == []
