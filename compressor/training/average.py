"""The mean of the weights over the last part of a training (Izmailov et al., UAI 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def floating(model: nn.Module) -> list[Tensor]:
    """All floating-point weights and statistics of a network."""
    state = model.state_dict().values()
    return [value for value in state if isinstance(value, Tensor) and value.is_floating_point()]


class Average:
    """A running mean of all floating-point weights and statistics of a network.

    Args:
        model: The network; it is changed by `apply` only.
    """

    def __init__(self, model: nn.Module) -> None:
        self._live = floating(model)
        self._mean: list[Tensor] = []
        self._count = 0

    @torch.no_grad()
    def add(self) -> None:
        """Take in the network as it is now."""
        self._count += 1
        if not self._mean:
            self._mean = [torch.zeros_like(tensor) for tensor in self._live]
        torch._foreach_lerp_(self._mean, self._live, 1 / self._count)

    @torch.no_grad()
    def apply(self) -> None:
        """Give the network the mean, where there is one."""
        if self._count:
            torch._foreach_copy_(self._live, self._mean)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network have the mean while the body runs, where there is one."""
        live = [tensor.clone() for tensor in self._live] if self._count else []
        self.apply()
        yield
        with torch.no_grad():
            if live:
                torch._foreach_copy_(self._live, live)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from."""
        return {"mean": self._mean, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that was saved."""
        self._count = state["count"]
        self._mean = [saved.to(live, copy=True) for saved, live in zip(state["mean"], self._live, strict=False)]
