"""Images in folders, one folder per class: root/train/<class>/… and root/val/<class>/…"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from compressor.data.base import Data, Source
from compressor.data.images import image_data, open_picture
from compressor.errors import InputError
from compressor.recipe import DataSection

VALIDATION = ("val", "validation", "test")
LAYOUT = "put the images into <root>/train/<class>/ and <root>/val/<class>/"


@dataclass(frozen=True)
class Files:
    """Image files and their labels."""

    paths: list[str]
    labels: list[int] | None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int | None]:
        return open_picture(self.paths[index]), self.labels[index] if self.labels else None


class ImageFolder(Source):
    """`root/train` and `root/val` (or `validation`, `test`) with a folder per class; or a folder of images only."""

    name: ClassVar[str] = "imagefolder"

    def load(self, section: DataSection, model_input: tuple[int, ...], seed: int) -> Data:
        """Scan the folders; the files are decoded when they are needed."""
        root = _root(section)
        train = root / "train" if (root / "train").is_dir() else root
        classes = _folders(train)
        if not classes:
            return image_data(Files(_images(train), None), None, section, model_input, seed)
        if train == root:
            raise InputError("there is no folder 'train' in it", where=str(root), cure=LAYOUT)
        validation = _validation(root)
        training = _labelled(train, classes)
        _check_same(classes, train, _folders(validation), validation)
        return image_data(training, _labelled(validation, classes), section, model_input, seed, classes=classes)


def _root(section: DataSection) -> Path:
    if section.root is None:
        raise InputError("imagefolder needs the folder of the images", where="data.root", cure="set data.root")
    if not section.root.is_dir():
        raise InputError(
            f"there is no folder {section.root}", where="data.root", cure="correct it; it is relative to the recipe"
        )
    return section.root


def _validation(root: Path) -> Path:
    for name in VALIDATION:
        if (root / name).is_dir():
            return root / name
    raise InputError(f"there is no folder {' or '.join(VALIDATION)} in it", where=str(root), cure=LAYOUT)


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def _check_same(classes: list[str], train: Path, others: list[str], validation: Path) -> None:
    if not others:
        raise InputError("there are no class folders in it", where=str(validation), cure=LAYOUT)
    for folder, lacking in ((validation, set(classes) - set(others)), (train, set(others) - set(classes))):
        if lacking:
            names = ", ".join(sorted(lacking)[:3])
            raise InputError(
                f"{len(lacking)} classes of the other part are missing here: {names}",
                where=str(folder),
                cure="give training and validation images the same class folders",
            )


def _labelled(root: Path, classes: list[str]) -> Files:
    _no_files(root)
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images(root / name)
        paths += found
        labels += [label] * len(found)
    return Files(paths, labels)


def _no_files(root: Path) -> None:
    for entry in os.scandir(root):
        if entry.is_file() and not entry.name.startswith("."):
            raise InputError(
                "this file is beside the class folders", where=entry.path, cure="move it into a class folder or away"
            )


def _images(folder: Path) -> list[str]:
    """All image files below a folder, in order; hidden files are passed over, others are an error."""
    paths = [
        os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names if not name.startswith(".")
    ]
    for path in paths:
        if not path.lower().endswith(IMG_EXTENSIONS):
            raise InputError(
                "not an image file",
                where=path,
                cure=f"remove it; images are {' '.join(IMG_EXTENSIONS)}",
            )
    if not paths:
        raise InputError(
            "there are no images in this folder", where=str(folder), cure="put images into it, or remove it"
        )
    return sorted(paths)
