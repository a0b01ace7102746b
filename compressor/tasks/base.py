"""What a task is: the only place that knows what the outputs of a network mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import default_collate

from compressor.errors import InputError
from compressor.recipe import FinetuneSection
from compressor.support.batches import Batch, floating, take
from compressor.tasks.metrics import Metric
from compressor.tasks.squared import projection, squared_errors


class Task(ABC):
    """What a network is for. One file of this package per task.

    `loss` and `metrics` are all that a task must say; everything else has a default that suits networks whose outputs
    are numbers. What belongs to an example is its row in every tensor, batch first, or its item in a list of mappings;
    so are batches cut, chosen from and put together. A task has no state: every call depends on its arguments only.

    Example:
        >>> from compressor.tasks import Mean
        >>> class Regression(compressor.Task):
        ...     name, summary = "regression", "one number for each input"
        ...
        ...     def loss(self, outputs, targets):
        ...         return nn.functional.mse_loss(outputs[:, 0], targets)
        ...
        ...     def metrics(self):
        ...         return {"mse": Mean(self.losses, "squared error", higher_is_better=False, percent=False)}
        >>> task = Regression()
        >>> inputs, targets = task.split([torch.zeros(2, 3), torch.tensor([1.0, 3.0])])
        >>> task.losses(torch.zeros(2, 1), targets)
        tensor([1., 9.])
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    batch: ClassVar[str] = "(input, …, targets)"
    """What a batch with targets is, in the words of error messages."""
    divergence_label: ClassVar[str] = "relative squared error"
    """What `divergence` is, in a sentence."""
    agreement_label: ClassVar[str] = "agreement with dense"
    """What `agreement` is, in a sentence."""

    def collate(self, items: Sequence[Any]) -> Any:
        """Put items of a dataset together to a batch."""
        return default_collate(list(items))

    def split(self, batch: Any) -> tuple[Batch, Any]:
        """Split a batch into what the network is given and what is to come out.

        Returns:
            The inputs, such that the network is called as `model(*inputs)`; and the targets, None without labels.

        Raises:
            InputError: it is no batch.
        """
        if isinstance(batch, Tensor):
            return (batch,), None
        if not isinstance(batch, tuple | list):
            cure = f"give {self.batch}, or single inputs, of one shape"
            raise InputError(f"an item is a {type(batch).__name__}", where="data.source", cure=cure)
        return (tuple(batch), None) if len(batch) == 1 else (tuple(batch[:-1]), batch[-1])

    def is_batch(self, batch: Any) -> bool:
        """Whether a batch is one to train on and to be measured by: tensors, and targets."""
        try:
            inputs, targets = self.split(batch)
        except InputError:
            return False
        return targets is not None and all(isinstance(tensor, Tensor) for tensor in inputs)

    def check(self, outputs: Any, targets: Any = None) -> None:
        """Refuse outputs that are none of this task, or targets that do not go with them.

        Args:
            outputs: What the network returns for a batch.
            targets: Those of the batch, on any device; None where there are none.

        Raises:
            InputError: naming what is wrong.
        """
        if not floating(outputs):
            cure = f"let the builder return a network for {self.name}"
            raise InputError("the network returns no floating-point tensor", where="model.builder", cure=cure)

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """The loss, averaged over the batch: a scalar that has a gradient."""

    def losses(self, outputs: Any, targets: Any) -> Tensor:
        """The loss of each example, (batch,), never negative. By default `loss` is asked about one after the other."""
        return _one_by_one(self.loss, outputs, targets)

    def training_loss(self, outputs: Any, targets: Any, settings: FinetuneSection) -> Tensor:
        """What training minimises: a scalar; `loss` with what the recipe's `finetune` adds to it."""
        return self.loss(outputs, targets)

    def divergence(self, outputs: Any, teacher: Any) -> Tensor:
        """How far outputs are from a teacher's, averaged over the batch: a scalar, 0 for the same ones.

        By default the squared error relative to the variance of the teacher's outputs, summed over all output tensors.
        """
        return squared_errors(outputs, teacher).mean()

    def divergences(self, outputs: Any, teacher: Any) -> Tensor:
        """The divergence of each example, (batch,). A task with a `divergence` of its own is asked one by one."""
        if type(self).divergence is Task.divergence:
            return squared_errors(outputs, teacher)
        return _one_by_one(self.divergence, outputs, teacher)

    def distillation_loss(self, outputs: Any, teacher: Any, settings: FinetuneSection) -> Tensor:
        """What training minimises to come close to a teacher: a scalar; `divergence` with what `finetune` adds."""
        return self.divergence(outputs, teacher)

    def projection(self, outputs: Any, teacher: Callable[[], Any], generator: torch.Generator) -> Tensor:
        """A random projection `v · outputs` that tells what changes of the outputs do to the divergence.

        To second order, a change `d` of the outputs of an example has the divergence `E[(v · d)²] / 2`: the covariance
        of `v` is the second derivative of the divergence at the outputs. Examples have independent `v`.

        Args:
            outputs: Those of the dense network for some examples, with gradients.
            teacher: Gives its outputs for a whole batch, where scales have to be known.
            generator: Draws `v`.

        Returns:
            The sum over the examples: a scalar.
        """
        return projection(outputs, teacher(), generator)

    def agreement(self, outputs: Any, teacher: Any) -> Tensor:
        """Without labels: how far the answer to each example is the teacher's, (batch,), 0 to 1.

        By default the share of the variance of the teacher's outputs that is met. Outputs that are no finite numbers
        never agree.
        """
        errors = squared_errors(outputs, teacher) / max(1, len(floating(teacher)))
        return (1 - errors).clamp(0, 1).nan_to_num(0)

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """New metrics by their names. The first one is the main metric: the run is judged by it."""

    def scores(self, outputs: Any, targets: Any) -> Tensor | None:
        """The main metric of each example, (batch,), where it is the mean of these; None where it is not."""
        return None

    @property
    def main(self) -> str:
        """The name of the main metric."""
        return next(iter(self.metrics()))


def _one_by_one(function: Callable[[Any, Any], Tensor], outputs: Any, others: Any) -> Tensor:
    """What a function of batches says about each example, (batch,)."""
    size = len(floating(outputs)[0])
    parts = (slice(number, number + 1) for number in range(size))
    return torch.stack([function(take(outputs, part, size), take(others, part, size)) for part in parts])
