"""How many batches a pass over the training images has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compressor.errors import InputError


def count_batches(loader: Iterable[Any]) -> int:
    """Return the length of a loader.

    Raises:
        InputError: It has none, or is empty.
    """
    try:
        batches = len(loader)  # type: ignore[arg-type]
    except TypeError as error:
        cure = "return a loader with __len__, the number of its batches"
        raise InputError("the training loader has no length", where="data.source", cure=cure) from error
    if batches == 0:
        raise InputError("there is no training batch", where="data", cure="lower data.batch_size or add images")
    return batches
