"""What is wrong with a recipe: every fault names its key, what was expected and what was got."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ValidationError

from compressor.errors import InputError
from compressor.support.suggest import nearest

_SHOWN = 20
_MESSAGES = {
    "missing": "is required but missing",
    "model_type": "expected keys and values",
    "dict_type": "expected keys and values",
    "tuple_type": "expected a list",
    "path_type": "expected a path",
    "invalid_key": "expected a name as key",
}


def explain(faults: Sequence[str], where: str) -> InputError:
    """One error that lists all faults of the recipe `where`."""
    more = [f"… and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    lines = [f"{count} in the recipe", *faults[:_SHOWN], *more]
    return InputError("\n  - ".join(lines), where=where, cure="correct what is listed and run the same command again")


def describe(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line for every fault that pydantic found in a recipe of the schema `root`."""
    lines = []
    for fault in error.errors(include_url=False):
        key = _key(fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key; {_hint(key, root)}")
        elif fault["type"] == "value_error":
            got = "" if isinstance(fault["input"], dict) else _got(fault["input"])
            lines.append(f"{key}: {fault['ctx']['error']}{got}")
        elif fault["type"] in ("missing", "invalid_key"):
            lines.append(f"{key}: {_MESSAGES[fault['type']]}")
        else:
            message = _MESSAGES.get(fault["type"], fault["msg"].replace("Input should be", "expected"))
            lines.append(f"{key}: {message}{_got(fault['input'])}")
    return lines


def _key(location: tuple[int | str, ...]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if part != "[key]"]
    return "".join(parts).removeprefix(".")


def _got(value: object) -> str:
    if isinstance(value, dict):
        return ", got keys and values"
    text = "nothing" if value is None else repr(list(value) if isinstance(value, tuple) else value)
    return f", got {text if len(text) <= 60 else text[:57] + '…'}"


def _hint(key: str, root: type[BaseModel]) -> str:
    section, _, name = key.rpartition(".")
    known = list(_keys(root))
    siblings = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == section]
    near = nearest(name, siblings) or [other for other in known if other.endswith(f".{name}")]
    suggestion = f"did you mean '{near[0]}'? " if near else ""
    return f"{suggestion}the keys {f'of {section}' if section else 'here'} are: {', '.join(siblings)}"


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All keys of a schema as dotted paths."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, f"{prefix}{name}.")
