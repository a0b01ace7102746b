"""Callables that a recipe names: `module:callable` or `path/to/file.py:callable`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from compressor.errors import InputError
from compressor.support.suggest import nearest


def call_named(spec: str, args: Mapping[str, Any], *, where: str, where_args: str, base: Path | None = None) -> Any:
    """Call what `spec` names with keyword arguments.

    Args:
        spec: `module:callable` or `file.py:callable`.
        args: Keyword arguments.
        where: The recipe's field that holds `spec`.
        where_args: The recipe's field that holds `args`.
        base: Directory of the recipe: files are relative to it, and modules are looked for in it, too.

    Returns:
        What the callable returns.

    Raises:
        InputError: it does not exist, does not take these arguments, or raises.
    """
    function = find_callable(spec, where=where, base=base)
    _check_arguments(function, spec, args, where_args)
    try:
        return function(**args)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in args.items())
        raise InputError(
            f"{spec}({given}) raised {type(error).__name__}: {error}",
            where=where,
            cure=f"correct {where_args}, or the callable; --debug shows where it was raised",
        ) from error


def find_callable(spec: str, *, where: str, base: Path | None = None) -> Callable[..., Any]:
    """Import what `spec` names; arguments and errors are those of `call_named`."""
    source, _, path = spec.rpartition(":")
    base = base or Path.cwd()
    if not source or not path:
        raise InputError(
            f"'{spec}' names no callable", where=where, cure="write module:callable or path/to/file.py:callable"
        )
    found: Any = _load_file(base / source, where) if source.endswith(".py") else _import_module(source, base, where)
    for name in path.split("."):
        if not hasattr(found, name):
            raise InputError(f"'{source}' has no '{name}'", where=where, cure=_offer(found, name))
        found = getattr(found, name)
    if not callable(found):
        raise InputError(
            f"'{spec}' is a {type(found).__name__}, not a callable", where=where, cure="name a function or class"
        )
    return found


def _offer(owner: Any, name: str) -> str:
    """What a module or class has instead of `name`: what is spelt alike, or the callables that it defines itself."""
    public = [other for other in dir(owner) if not other.startswith("_")]
    near = nearest(name, public, 3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    home = getattr(owner, "__name__", None)
    own = [other for other in public if getattr(getattr(owner, other), "__module__", None) == home]
    return f"it offers: {', '.join(own[:20])}" if own else "name a callable that it defines"


def _load_file(path: Path, where: str) -> ModuleType:
    # A name of its own, so that the module can be in `sys.modules`, where dataclasses and `inspect` look for it.
    name = f"{path.stem}_{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError(f"there is no file {path}", where=where, cure="give the path relative to the recipe")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _import_error(str(path), error, where) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _import_module(name: str, base: Path, where: str) -> ModuleType:
    if str(base) not in sys.path:
        sys.path.append(str(base))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _import_error(name, error, where) from error
        raise InputError(
            f"there is no module '{error.name}'",
            where=where,
            cure=f"install it, put it into {base}, or name a file: path/to/file.py:callable",
        ) from error
    except (Exception, SystemExit) as error:
        raise _import_error(name, error, where) from error


def _import_error(name: str, error: BaseException, where: str) -> InputError:
    return InputError(
        f"importing {name} raised {type(error).__name__}: {error}", where=where, cure=f"correct or install {name}"
    )


def _check_arguments(function: Callable[..., Any], spec: str, args: Mapping[str, Any], where: str) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:
        return
    try:
        signature.bind(**args)
    except TypeError as error:
        raise InputError(f"{spec}: {error}", where=where, cure=f"it takes {signature}") from error
