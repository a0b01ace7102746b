from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Paint = Callable[..., Path]


@pytest.fixture
def paint() -> Paint:
    """Write an image of random pixels."""

    def write(path: Path, size: int = 16, seed: int = 0, mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path, paint: Paint) -> Path:
    """Two classes, with 6 training and 2 validation images each."""
    for part, count in (("train", 6), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                paint(
                    tmp_path / "images" / part / name / f"{number}.png",
                    seed=100 * label + number + 10 * (part == "val"),
                )
    return tmp_path / "images"
