"""Measured latency per operator, over the widths that a network can take: a small JSON file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.errors import ExportError
from exporters.operators import Measured, Operator, as_json

SCHEMA = 1
MOST_BYTES = 200_000_000


@dataclass(frozen=True)
class LatencyTable:
    """What the operators of a network cost on a device.

    Attributes:
        device: The machine and its versions.
        settings: Provider, threads, batch size, and the network that was measured.
        widths: Kept units by the name of the group, for every network that was measured.
        measured: What was measured of each of them, in the same order.
    """

    device: dict[str, Any]
    settings: dict[str, Any]
    widths: tuple[Mapping[str, int], ...]
    measured: tuple[Measured, ...]

    def save(self, path: str | Path) -> None:
        """Write the table; the file appears whole or not at all."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(as_json(self.settings, self.widths, self.measured, self.device))
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read a table.

        Raises:
            ExportError: the file is not a latency table.
        """
        path = Path(path)
        if not path.is_file():
            cure = "write one with `compressor profile RECIPE --out table.json`"
            raise ExportError("there is no such file", where=str(path), cure=cure)
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError(f"larger than {MOST_BYTES} bytes")
            return cls._parsed(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            cure = "write one with `compressor profile RECIPE --out table.json`"
            raise ExportError(f"not a latency table ({error})", where=str(path), cure=cure) from error

    @classmethod
    def _parsed(cls, content: dict[str, Any]) -> LatencyTable:
        if content.pop("schema", None) != SCHEMA:
            raise ValueError(f"expected schema {SCHEMA}")
        operators = [
            Operator(str(name), str(kind), _shapes(inputs), _shapes(outputs))
            for name, kind, inputs, outputs in content.pop("operators")
        ]
        networks = content.pop("networks")
        measured = tuple(
            Measured(_positive(n["us"]), [(operators[int(i)], _positive(us)) for i, us in n["operators"]])
            for n in networks
        )
        widths = tuple({str(name): int(width) for name, width in n["widths"].items()} for n in networks)
        if not networks:
            raise ValueError("it holds no network")
        return cls(dict(content.pop("device")), content, widths, measured)


def _shapes(value: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(n) for n in shape) for shape in value)


def _positive(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{value} is no duration")
    return number
