"""The short form of the benchmarks, `--short`: digits and random weights, a minute each, to see whether a number moved.

With COMPRESSOR_IMAGES (CIFAR-10 as train/<class>/*.jpg and val/<class>/*.jpg) and COMPRESSOR_CHECKPOINTS (a folder with
resnet20-cifar10-jpeg.pth) set, those that are about trained networks take ResNet-20 instead of the digits.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch

from compressor.pipeline.demo import recipe_text, train
from compressor.recipe import load_recipe
from compressor.support.progress import Journal

asked = "--short" in sys.argv
FOLDER = Path("runs", "benchmark")
SAMPLE = Path(__file__).parents[2] / "samples" / "cifar10-resnet" / "recipe-resnet20.yaml"
FEW = ["benchmark.seconds=0.5", "compress.calibration.images=256"]


def parse(parser: argparse.ArgumentParser, **defaults: Any) -> argparse.Namespace:
    """Parse the arguments of a benchmark; with `--short` other defaults hold."""
    parser.add_argument("--short", action="store_true", help="a minute, on digits and random weights")
    if asked:
        parser.set_defaults(**defaults)
    return parser.parse_args()


def recipe() -> tuple[Path, list[str]]:
    """Return a recipe with a trained network, and overrides that make it quick."""
    images, checkpoints = os.environ.get("COMPRESSOR_IMAGES"), os.environ.get("COMPRESSOR_CHECKPOINTS")
    if not images or not checkpoints:
        return digits(), FEW
    checkpoint = Path(checkpoints, "resnet20-cifar10-jpeg.pth").absolute()
    return SAMPLE, [*FEW, f"model.checkpoint={checkpoint}", f"data.root={subset(Path(images)).absolute()}"]


def subset(data: Path) -> Path:
    """Return a folder with some images of each class, links to the originals."""
    for part, count in (("train", 200), ("val", 50)):
        for source in sorted(path for path in (data / part).iterdir() if path.is_dir()):
            target = FOLDER / "images" / part / source.name
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted(source.iterdir())[:count]:
                if not (target / path.name).exists():
                    (target / path.name).symlink_to(path.resolve())
    return FOLDER / "images"


def digits() -> Path:
    """Train the network of the demonstration, unless that is done, and return its recipe."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path, checkpoint = FOLDER / "digits.yaml", FOLDER / "digits.pth"
    path.write_text(recipe_text("digits.yaml", "digits.pth"))
    if not checkpoint.exists():
        torch.save(train(load_recipe(path), Journal(FOLDER / "log.txt")).state_dict(), checkpoint)
    return path
