"""A small residual network for handwritten digits, for the demonstration and the tests."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.functional import relu


class Block(nn.Module):
    """Two 3x3 convolutions around which the input is added."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, inputs, h, w] to [batch, outputs, h / stride, w / stride]."""
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(y + self.shortcut(x))


def digits_resnet(width: int = 32, classes: int = 10, in_channels: int = 1) -> nn.Sequential:
    """Build a residual network with three stages of two blocks, of `width`, 2 * `width` and 4 * `width` channels.

    Args:
        width: Channels of the first stage; multiples of 16 run best.
        classes: Number of outputs.
        in_channels: Channels of the image.

    Returns:
        A network for images of 16 x 16 pixels or more; 32 x 32 is what it is meant for.
    """
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(in_channels, width, 3, 2, 1, bias=False),
        "bn": nn.BatchNorm2d(width),
        "relu": nn.ReLU(),
    }
    channels = width
    for stage in range(3):
        layers[f"stage{stage + 1}"] = nn.Sequential(
            Block(channels, width << stage, 2 if stage else 1),
            Block(width << stage, width << stage),
        )
        channels = width << stage
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(channels, classes)}
    return nn.Sequential(OrderedDict(layers))
