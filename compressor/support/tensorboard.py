"""Curves for TensorBoard, which is not part of the installation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import InputError
from compressor.support import distributed
from compressor.support.progress import Listener


@contextmanager
def tensorboard(directory: Path) -> Iterator[Listener | None]:
    """Write what advances into a directory, one curve for each value; None where another process does that.

    Raises:
        InputError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        cure = "pip install tensorboard, or run without --tensorboard"
        raise InputError(f"TensorBoard cannot be imported ({error})", where="--tensorboard", cure=cure) from error
    if not distributed.leads():
        yield None
        return
    with SummaryWriter(directory) as writer:

        def write(title: str, step: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(f"{title}/{name}", value, step)

        yield write
