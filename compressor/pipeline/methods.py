"""What ranks units, by its name in the recipe."""

from __future__ import annotations

from pathlib import Path

from compressor.errors import InputError
from compressor.gates.base import Gate
from compressor.gates.settings import is_gate, read_gate
from compressor.recipe import CompressSection
from compressor.selection.base import Method
from compressor.selection.lookup import find_method
from compressor.support import plugins


def make_method(section: CompressSection, folder: Path | None = None) -> Method:
    """Return the selection method with its options.

    Args:
        section: The recipe's `compress` section.
        folder: Directory of the recipe, where a method of the user's own is looked for.

    Raises:
        InputError: there is no such method, it is no selection method, or it does not take these options.
    """
    gates = plugins.discover("compressor.gates", Gate)
    kind = find_method(section.method, where="compress.method", folder=folder, others=gates)
    options = plugins.read_options(kind, section.options, where="compress.options")
    try:
        return kind(**options)
    except InputError:
        raise
    except Exception as error:  # whatever the code of others raises
        problem = f"'{section.method}' with these options raised {type(error).__name__}: {error}"
        cure = "correct the options, or the method; --debug shows where it was raised"
        raise InputError(problem, where="compress.options", cure=cure) from error


def first_method(section: CompressSection, folder: Path | None = None) -> Method | None:
    """Return the method that ranks units before anything is trained: none where gates start open.

    Args:
        section: The recipe's `compress` section.
        folder: Directory of the recipe, where a method of the user's own is looked for.

    Raises:
        InputError: method, options or epochs are at fault.
    """
    if not is_gate(section):
        method = make_method(section, folder)
        if section.epochs is not None:
            cure = "remove the key, or choose a gate as the method (`compressor methods`)"
            raise InputError(f"'{section.method}' trains nothing", where="compress.epochs", cure=cure)
        return method
    init = read_gate(section)[1].init
    if init == "open":
        return None
    return find_method(init, where="compress.options.init", folder=folder)()
