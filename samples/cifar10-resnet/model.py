"""ResNets for CIFAR-10 (He et al. 2016, section 4.2), with the parameter names of the published checkpoints.

A 3x3 convolution and three stages of basic blocks, 16, 32 and 64 channels wide. Where the width doubles, the shortcut
has no weights: it takes every second pixel and pads the channels with zeros, half of them before and half behind.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad, relu


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.margin = (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, inputs, h, w] to [batch, outputs, h / stride, w / stride]."""
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """The input itself, brought to the output's shape without weights."""
        if self.stride == 1:
            return x
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.margin, self.margin))


class ResNet(nn.Module):
    """A residual network for images of 32 x 32 pixels."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, blocks)
        self.layer2 = stage(16, 32, blocks)
        self.layer3 = stage(32, 64, blocks)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [batch, 3, 32, 32] to logits [batch, classes]."""
        y = relu(self.bn1(self.conv1(x)))
        y = self.layer3(self.layer2(self.layer1(y)))
        return self.linear(y.mean((2, 3)))


def stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    """A chain of blocks of which the first changes the width."""
    return nn.Sequential(BasicBlock(inputs, outputs), *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


def resnet20(classes: int = 10) -> ResNet:
    """Three stages of 3 blocks; 0.27 million parameters."""
    return ResNet(3, classes)


def resnet32(classes: int = 10) -> ResNet:
    """Three stages of 5 blocks; 0.46 million parameters."""
    return ResNet(5, classes)


def resnet44(classes: int = 10) -> ResNet:
    """Three stages of 7 blocks; 0.66 million parameters."""
    return ResNet(7, classes)


def resnet56(classes: int = 10) -> ResNet:
    """Three stages of 9 blocks; 0.85 million parameters."""
    return ResNet(9, classes)


def resnet110(classes: int = 10) -> ResNet:
    """Three stages of 18 blocks; 1.7 million parameters."""
    return ResNet(18, classes)
