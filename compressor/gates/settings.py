"""What a recipe can say about learning gates, and the gate it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from compressor import plugins
from compressor.errors import InputError
from compressor.gates.base import Gate
from compressor.recipe import CompressSection, Section


class GateSettings(Section):
    """The options that all gates have.

    Attributes:
        init: `open`, or the selection method whose ranking decides which gates are the first to close.
        price: The recipe's `lambda`: a fixed price of the dense cost in units of the loss; None finds it.
        warmup: Share of the steps before the gates begin to learn.
        harden: Share of the steps after they have: the network trains with its final units.
    """

    model_config = ConfigDict(populate_by_name=True)

    init: str = "open"
    price: float | None = Field(None, alias="lambda", gt=0)
    warmup: float = Field(0.05, ge=0, lt=0.5)
    harden: float = Field(0.45, ge=0, lt=0.5)


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
        problem, cure = f"'{section.method}': {first['msg']}", f"the options of '{section.method}' are: {known}"
        raise InputError(problem, where=f"compress.options.{first['loc'][0]}", cure=cure) from error
    if settings.price is not None and not kind.steered:
        cure = "leave lambda out, or choose another gate"
        raise InputError(f"'{kind.name}' has no penalty to set a price for", where="compress.options.lambda", cure=cure)
    kind([1], **given)  # options with values that the gate does not know are refused before any work
    return lambda sizes: kind(sizes, **given), settings
