"""The Accelerator of a training: precision, compilation and processes."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration

from compressor.errors import InputError, MachineError
from compressor.recipe import FinetuneSection
from compressor.support import distributed

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def make_accelerator(settings: FinetuneSection, batch_size: int | None) -> Accelerator:
    """Return an Accelerator that trains as the recipe says.

    Args:
        settings: Precision and compilation.
        batch_size: Images in a batch, which all processes share; None where that is not known.

    Raises:
        InputError: a batch cannot be divided by the processes.
        MachineError: fp16 is asked for, and there is no GPU.
    """
    if batch_size is not None and batch_size % distributed.count():
        cure = f"make it a multiple of {distributed.count()}"
        raise InputError(
            f"batches of {batch_size} cannot be shared by {distributed.count()} processes",
            where="data.batch_size",
            cure=cure,
        )
    AcceleratorState._reset_state()  # an earlier training of this process may have had another precision
    accelerator = Accelerator(
        mixed_precision=PRECISIONS[settings.precision],
        dynamo_backend="inductor" if settings.compile else None,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    if settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise MachineError("fp16 needs a GPU", where="finetune.precision", cure="choose bf16 or fp32")
    return accelerator
