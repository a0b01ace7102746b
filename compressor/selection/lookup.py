"""Selection methods by name: those of this package, of installed packages, and the user's own classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from compressor.errors import InputError
from compressor.selection.base import Method
from compressor.support import plugins

PACKAGE = "compressor.selection.methods"
GROUP = "compressor.methods"
"""Group of the entry points by which an installed package offers methods."""


def find_method(name: str, *, where: str, folder: Path | None = None, others: Iterable[str] = ()) -> type[Method]:
    """Return the selection method that a recipe names.

    A name of this package goes before the same name of another one.

    Args:
        name: As `compressor methods` lists it, or `module:Class`, or `path/to/file.py:Class`.
        where: The recipe's field that holds the name.
        folder: Directory of the recipe, where files and modules are looked for.
        others: Further names that the field takes, for the message.

    Raises:
        InputError: there is no such method, or the class is no selection method.
    """
    if ":" in name:
        return plugins.load(name, Method, where=where, folder=folder)
    own, points = plugins.discover(PACKAGE, Method), plugins.installed(GROUP)
    if name in own:
        return own[name]
    if name in points:
        return plugins.load_installed(points[name], Method, where=where)
    raise plugins.unknown(name, [*own, *points, *others], where=where)


def list_methods() -> tuple[dict[str, type[Method]], list[InputError]]:
    """Return all methods that have a name, and what is wrong with those of installed packages that cannot be used."""
    found, problems = plugins.discover(PACKAGE, Method), []
    for name, point in plugins.installed(GROUP).items():
        where = f"entry point {name}"
        if name in found:
            cure = "rename the entry point"
            problems.append(InputError("the name belongs to a method of compressor", where=where, cure=cure))
            continue
        try:
            found[name] = plugins.load_installed(point, Method, where=where)
        except InputError as error:
            problems.append(error)
    return found, problems
