"""Several processes that work on one run. `torchrun` or `accelerate launch` starts them; rank 0 leads.

The leader decides, writes and measures; what all do together are passes over images, of which each takes its part.
What is said between them goes over gloo, which waits without using a processor, so that a benchmark is not disturbed.
"""

from __future__ import annotations

import atexit
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from compressor.errors import InputError, LeaderStopped

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long others wait for the leader; a process that ends is noticed at once."""
SHARDED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")


def start() -> None:
    """Join the other processes, where a launcher started several; to be called before all else.

    Raises:
        InputError: the launcher was told to split the network itself.
    """
    if any(map(_is_set, SHARDED)):
        problem = "FSDP, DeepSpeed and Megatron are not supported: every process holds the whole network"
        cure = "launch without them, for example with torchrun --nproc-per-node 2 -m compressor run …"
        raise InputError(problem, where="accelerate launch", cure=cure)
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if launched and torch.accelerator.current_accelerator(check_available=True) is None:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")  # says itself: no error
    PartialState(cpu=_is_set("ACCELERATE_USE_CPU"), timeout=PATIENCE)
    if count() > 1:
        atexit.register(_leave)


def count() -> int:
    """Number of processes."""
    return int(PartialState().num_processes)


def rank() -> int:
    """Number of this process, from 0."""
    return int(PartialState().process_index)


def leads() -> bool:
    """Whether this process is rank 0."""
    return rank() == 0


def lead(function: Callable[[], T]) -> T:
    """Let rank 0 do something while the others wait; all get its result.

    Raises:
        LeaderStopped: on the others, when it raised something; they end with the same exit code.
    """
    if count() == 1:
        return function()
    if not leads():
        exit_code, result = _broadcast(None)
        if exit_code:
            raise LeaderStopped(exit_code)
        return result
    try:
        result = function()
    except BaseException as error:
        _broadcast((130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 70), None))
        raise
    _broadcast((0, result))
    return result


def share(batches: Iterable[T]) -> Iterable[T]:
    """This process's part of some batches: every n-th. Of a data loader, the others are not even read."""
    if count() == 1:
        return batches
    if isinstance(batches, DataLoader) and not isinstance(batches.dataset, IterableDataset):
        return prepare_data_loader(
            batches, num_processes=count(), process_index=rank(), even_batches=False, put_on_device=False
        )
    return islice(batches, rank(), None, count())


def all_reduce_sum(tensors: Sequence[Tensor]) -> None:
    """Replace tensors on the CPU by their sums over all processes."""
    if count() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor, group=_group())


def all_gather(value: T) -> list[T]:
    """What every process brought, by rank."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value, group=_group())
    return values


def is_loss_of_another(error: BaseException) -> bool:
    """Whether an error says that another process has ended."""
    words = r"gloo|NCCL|Connection (closed|reset|refused)|[Bb]roken pipe"
    return count() > 1 and isinstance(error, RuntimeError) and re.search(words, str(error)) is not None


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


def _leave() -> None:
    """End the threads that wait for the others: a process that ends with them running may be aborted."""
    if dist.is_initialized():
        _group.cache_clear()
        dist.destroy_process_group()


def _broadcast(value: Any) -> Any:
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_group())
    return values[0]


@lru_cache(maxsize=1)
def _group() -> Any:
    return dist.new_group(backend="gloo", timeout=PATIENCE)
