"""Images without meaning, for measurements that are about time and memory: a data source for recipes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset


class Noise(Dataset[Tensor]):
    """Smooth random images, each the same whenever it is asked for."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < self.count:
            raise IndexError(index)
        coarse = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(index))
        return torch.nn.functional.interpolate(coarse, size=(self.size, self.size), mode="bilinear")[0]


def noise(count: int, size: int) -> dict[str, Dataset[Tensor]]:
    """Unlabelled images for calibration."""
    return {"calibration": Noise(count, size)}
