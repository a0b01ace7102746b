"""Plug-ins, found by name: the classes of a package, of installed packages, and of the user's own files.

A package of this project offers every concrete subclass that one of its modules defines, by its `name`. Another
distribution offers a class by an entry point. A recipe can also name a class itself: `module:Class` or `file.py:Class`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from inspect import Parameter, isabstract, signature
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from compressor.errors import InputError
from compressor.support.files import sha256
from compressor.support.imports import find_callable
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


def load(spec: str, base: type[T], *, where: str, folder: Path | None = None) -> type[T]:
    """Return the plug-in class that `module:Class` or `path/to/file.py:Class` names.

    Args:
        spec: The class.
        base: What it must be a subclass of.
        where: The recipe's field that holds `spec`.
        folder: Directory of the recipe, where files and modules are looked for.

    Raises:
        InputError: the class does not exist, or cannot serve as such a plug-in.
    """
    return _check(find_callable(spec, where=where, base=folder), base, spec, where=where)


def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of installed distributions in `group`, by name; nothing is imported."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def load_installed(point: EntryPoint, base: type[T], *, where: str) -> type[T]:
    """Return the plug-in class of an entry point.

    Raises:
        InputError: it cannot be imported, or cannot serve as such a plug-in.
    """
    source = point.dist.name if point.dist else point.value
    try:
        found = point.load()
    except Exception as error:  # whatever the code of another distribution raises
        problem = f"'{point.name}' of the package {source} cannot be imported ({type(error).__name__}: {error})"
        raise InputError(problem, where=where, cure=f"update or remove {source}, or choose another name") from error
    return _check(found, base, point.value, where=where)


def _check(found: object, base: type[T], spec: str, *, where: str) -> type[T]:
    """Return `found` if it can be used as a plug-in, else say what is missing."""
    if not isinstance(found, type) or not issubclass(found, base):
        problem = f"'{spec}' is not a subclass of {base.__name__}"
        raise InputError(problem, where=where, cure=f"derive the class from {base.__module__}.{base.__name__}")
    abstract = sorted(getattr(found, "__abstractmethods__", ()))
    missing = [*abstract, *(name for name in base.__annotations__ if not hasattr(found, name))]
    if missing:
        raise InputError(f"'{spec}' lacks {', '.join(missing)}", where=where, cure="define what is missing")
    bare = [name for name, parameter in signature(found).parameters.items() if _is_required(parameter)]
    if bare:
        problem = f"'{spec}' cannot be made without {', '.join(bare)}"
        raise InputError(problem, where=where, cure="give every option of the class a default")
    return found


def _is_required(parameter: Parameter) -> bool:
    is_variadic = parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return parameter.default is Parameter.empty and not is_variadic


def code_of(kind: type[Any]) -> str | None:
    """Hash of the file that defines a plug-in; None for those of this package, which its version stands for."""
    if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return None
    file = inspect.getsourcefile(kind)
    return sha256(Path(file)) if file else None


def options_of(kind: type[Any]) -> dict[str, Any]:
    """What a recipe can set of a plug-in, with the defaults."""
    own = signature(kind).parameters.values()
    return {option.name: option.default for option in own if option.default is not option.empty}


def read_options(kind: type[Any], given: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The options that a recipe gives, as the types that the plug-in names.

    Raises:
        InputError: an option is unknown, or of another type.
    """
    known, hints = options_of(kind), _hints(kind, where) if given else {}
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            cure = f"the options are: {', '.join(known) or 'none'}"
            raise InputError("there is no such option", where=f"{where}.{name}", cure=cure)
        try:
            read[name] = TypeAdapter(hints.get(name, Any)).validate_python(value)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            raise InputError(problem, where=f"{where}.{name}", cure=f"the default is {known[name]!r}") from error
    return read


def _hints(kind: type[Any], where: str) -> dict[str, Any]:
    try:
        return get_type_hints(kind.__init__, include_extras=True)
    except NameError as error:
        problem = f"the type of an option of {kind.__name__} is unknown: {error}"
        raise InputError(problem, where=where, cure="import the type where the class is defined") from error


def unknown(name: str, known: Iterable[str], *, where: str) -> InputError:
    """The error that says so, with the nearest name and all others."""
    known = list(known)
    near = nearest(name, known)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return InputError(f"'{name}' is not known", where=where, cure=f"{hint}choose one of: {', '.join(known)}")
