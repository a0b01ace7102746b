"""The best weights of a training, by images that it does not learn from: those it began with, or those of an epoch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from compressor.data.base import HeldOut
from compressor.support import distributed
from compressor.support.batches import placed
from compressor.support.modules import inference
from compressor.tasks import DEFAULT, Metric, Task, as_keys
from compressor.training.history import BEFORE
from compressor.training.order import Order

CERTAIN = 1.0
"""Standard errors by which the numbers of better answers must differ to tell two networks apart."""


@dataclass(frozen=True)
class Score:
    """How good weights are.

    Attributes:
        examples: How well each image is answered, (images,): larger is better, such as whether that is right.
        loss: Mean loss; infinite where outputs are no finite numbers.
        metric: The main metric; the mean over the images where it is not given.
    """

    examples: Tensor
    loss: float
    metric: float | None = None

    @property
    def main(self) -> float:
        """The main metric."""
        return float(self.examples.double().mean()) if self.metric is None else self.metric

    def beats(self, other: Score) -> bool:
        """Whether these weights are better on the same images.

        Few images do not tell accuracies apart: those count that one of the two answers better, and where their
        difference is within chance, the loss decides.
        """
        ours, theirs = int((self.examples > other.examples).sum()), int((other.examples > self.examples).sum())
        if abs(ours - theirs) > CERTAIN * (ours + theirs) ** 0.5:
            return ours > theirs
        return self.loss < other.loss


class Best:
    """Judges the weights of a network on held-out images, and keeps the best ones.

    Args:
        model: The network; it is changed by `apply` only.
        held_out: The images.
        begun: Weights that the training is to be compared with, where the network has others already.
        seed: Of what the images' loader draws at random.
        task: What the network is for.
    """

    def __init__(
        self,
        model: nn.Module,
        held_out: HeldOut,
        *,
        begun: Mapping[str, Any] | None = None,
        seed: int = 0,
        task: Task = DEFAULT,
    ) -> None:
        self._model, self._held_out, self._begun, self._task = model, held_out, begun, task
        self._order = Order(held_out.batches, held_out.batches, seed)
        self.scores: list[tuple[float, float]] = []
        self._kept = Score(torch.zeros(0, dtype=torch.bool), float("inf"))
        self._weights: dict[str, Any] = {}
        self.chosen = 0

    def begin(self) -> None:
        """Judge what there is before the first step, or read the images once more in a training that goes on."""
        if self.scores:
            self._read_again()
        elif self._begun is None:
            self.judge()
        else:
            live = copy.deepcopy(self._model.state_dict())
            self._model.load_state_dict(self._begun)
            self.judge()
            self._model.load_state_dict(live)

    def judge(self) -> None:
        """Judge the network as it is now, and keep its weights where they are the best so far."""
        score = distributed.lead(self._score)
        if not self.scores or score.beats(self._kept):
            self.chosen = len(self.scores)
            self._kept, self._weights = score, copy.deepcopy(self._model.state_dict())
        self.scores.append((score.main, score.loss))

    def apply(self) -> None:
        """Give the network the best weights."""
        self._model.load_state_dict(self._weights)

    def found(self) -> dict[str, Any]:
        """What came out: plain JSON values, as `report.json` has them."""
        names = [BEFORE, *(f"epoch {number}" for number in range(1, len(self.scores)))]
        before, *epochs = ({"loss": loss} | as_keys({self._task.main: main}) for main, loss in self.scores)
        return {
            "delivered": names[self.chosen],
            "held_out": {"before": before, "epochs": epochs},
            "images": len(self._kept.examples),
            "problem": self._held_out.problem,
        }

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from."""
        kept = {"examples": self._kept.examples, "loss": self._kept.loss, "weights": self._weights}
        return {"scores": [list(score) for score in self.scores], "chosen": self.chosen, **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that was saved."""
        self.scores, self.chosen = [(main, loss) for main, loss in state["scores"]], state["chosen"]
        self._kept, self._weights = Score(state["examples"], state["loss"]), state["weights"]

    def _batches(self) -> Any:
        return (batch for _, batch in self._order.batches(0))

    def _read_again(self) -> None:
        """What reading changes in the user's own dataset is to be changed in a training that goes on, too."""
        dataset = getattr(self._held_out.batches, "dataset", self._held_out.batches)
        if not getattr(dataset, "stateless", False):
            for _ in self._batches():
                pass

    def _score(self) -> Score:
        device = next(self._model.parameters()).device
        metric: Metric = self._task.metrics()[self._task.main]
        scores, losses = list[Tensor | None](), list[Tensor]()
        with inference(self._model):
            for batch in self._batches():
                inputs, targets = self._task.split(batch)
                outputs = tree_map(_single, self._model(*placed(inputs, device)))
                targets = placed(targets, device)
                scores.append(self._task.scores(outputs, targets))
                losses.append(self._task.losses(outputs, targets))
                metric.update(outputs, targets)
        loss = float(torch.cat(losses).double().mean())
        loss = loss if loss == loss else float("inf")
        known = [score for score in scores if score is not None]
        if not known:
            return Score(-torch.cat(losses).cpu(), loss, metric.compute())
        examples = torch.cat(known).cpu()
        main = float(examples.double().mean())
        return Score(examples if metric.higher_is_better else -examples.double(), loss, main)


def _single(leaf: Any) -> Any:
    """A floating-point tensor in single precision."""
    return leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
