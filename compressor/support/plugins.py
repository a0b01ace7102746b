"""Plug-ins are found by name: every module of a package that defines a subclass with a `name`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from inspect import isabstract, signature
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from compressor.errors import InputError
from compressor.support.suggest import nearest

T = TypeVar("T")


def discover(package: str, base: type[T]) -> dict[str, type[T]]:
    """Import every module of `package` and return its concrete subclasses of `base` by their `name`."""
    root = importlib.import_module(package)
    found: dict[str, type[T]] = {}
    for info in pkgutil.iter_modules(root.__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        for item in vars(module).values():
            if (
                isinstance(item, type)
                and issubclass(item, base)
                and not isabstract(item)
                and item.__module__ == module.__name__
            ):
                found[getattr(item, "name")] = item  # noqa: B009 - `name` is a convention of plug-ins, not of T
    return dict(sorted(found.items()))


def find(package: str, base: type[T], name: str, *, where: str) -> type[T]:
    """Return the plug-in called `name`.

    Raises:
        InputError: there is no such plug-in; the message lists the nearest name and all others.
    """
    known = discover(package, base)
    if name in known:
        return known[name]
    raise unknown(name, known, where=where)


def options_of(kind: type[Any]) -> dict[str, Any]:
    """What a recipe can set of a plug-in, with the defaults."""
    own = signature(kind).parameters.values()
    return {option.name: option.default for option in own if option.default is not option.empty}


def read_options(kind: type[Any], given: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The options that a recipe gives, as the types that the plug-in names.

    Raises:
        InputError: an option is unknown, or of another type.
    """
    known, hints = options_of(kind), get_type_hints(kind.__init__, include_extras=True)
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            cure = f"the options are: {', '.join(known) or 'none'}"
            raise InputError("there is no such option", where=f"{where}.{name}", cure=cure)
        try:
            read[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            raise InputError(problem, where=f"{where}.{name}", cure=f"the default is {known[name]!r}") from error
    return read


def unknown(name: str, known: Iterable[str], *, where: str) -> InputError:
    """The error that says so, with the nearest name and all others."""
    known = list(known)
    near = nearest(name, known)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return InputError(f"'{name}' is not known", where=where, cure=f"{hint}choose one of: {', '.join(known)}")
