"""Plug-ins are found by name: every module of a package that defines a subclass with a `name`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from inspect import isabstract, signature
from typing import Any, TypeVar

from compressor.errors import InputError

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


def unknown(name: str, known: Iterable[str], *, where: str) -> InputError:
    """The error that says so, with the nearest name and all others."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return InputError(f"'{name}' is not known", where=where, cure=f"{hint}choose one of: {', '.join(known)}")
