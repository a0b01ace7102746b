"""What a recipe can say about learning gates, and the gate it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field, ValidationError, model_validator

from compressor.errors import InputError
from compressor.gates.base import Gate
from compressor.recipe import CompressSection, Section
from compressor.support import plugins


class GateSettings(Section):
    """The options that all gates have.

    Attributes:
        init: `open`, or the selection method whose ranking decides which gates are the first to close.
        price: The recipe's `lambda`: a fixed price of the dense cost in units of the loss; None finds it.
        warmup: Share of the steps before the gates begin to learn.
        harden: Share of the steps after they have: the network trains with its final units.
    """

    init: str = "open"
    price: float | None = Field(None, alias="lambda", gt=0)
    warmup: float = Field(0.05, ge=0, lt=0.5)
    harden: float = Field(0.45, ge=0, lt=0.5)

    @model_validator(mode="after")
    def _leave_time(self) -> GateSettings:
        if self.warmup + self.harden > MOST_STILL:
            raise ValueError(f"warmup and harden together must be at most {MOST_STILL}, so that the gates can learn")
        return self


MOST_STILL = 0.9
"""Most of the steps in which gates do not learn."""

EPOCHS = 2
"""Epochs in which gates learn where the recipe does not say."""
MakeGate = Callable[[Sequence[int]], Gate]


def is_gate(section: CompressSection) -> bool:
    """Whether the method that is asked for is a gate."""
    return section.method in plugins.discover("compressor.gates", Gate)


def gate_options(kind: type[Gate]) -> dict[str, Any]:
    """The options of a gate with their defaults: its own, and those that all have."""
    shared = {field.alias or name: field.default for name, field in GateSettings.model_fields.items()}
    if not kind.steered:
        del shared["lambda"]
    return plugins.options_of(kind) | shared


def read_gate(section: CompressSection) -> tuple[MakeGate, GateSettings]:
    """Return what makes the gate, from the sizes of the groups, and how it is to learn.

    Raises:
        InputError: an option is unknown or has no such value.
    """
    kind = plugins.find("compressor.gates", Gate, section.method, where="compress.method")
    own = set(plugins.options_of(kind))
    given: dict[str, Any] = dict(section.options)
    shared = {name: given.pop(name) for name in list(given) if name not in own}
    try:
        settings = GateSettings.model_validate(shared)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        known = ", ".join(sorted(gate_options(kind)))
        problem = f"'{section.method}': {first['msg'].removeprefix('Value error, ')}"
        cure = f"the options of '{section.method}' are: {known}"
        raise InputError(problem, where=".".join(["compress.options", *map(str, first["loc"])]), cure=cure) from error
    if settings.price is not None and not kind.steered:
        cure = "leave lambda out, or choose another gate"
        raise InputError(f"'{kind.name}' has no penalty to set a price for", where="compress.options.lambda", cure=cure)
    own_options = plugins.read_options(kind, given, where="compress.options")
    kind([1], **own_options)  # options with values that the gate does not know are refused before any work
    return lambda sizes: kind(sizes, **own_options), settings
