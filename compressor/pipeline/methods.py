"""What ranks units, by its name in the recipe."""

from __future__ import annotations

from compressor.errors import InputError
from compressor.gates.base import Gate
from compressor.gates.settings import is_gate, read_gate
from compressor.recipe import CompressSection
from compressor.selection.base import Method
from compressor.support import plugins


def make_method(section: CompressSection) -> Method:
    """Return the selection method with its options.

    Raises:
        InputError: there is no such method, or it does not take these options.
    """
    methods = plugins.discover("compressor.selection.methods", Method)
    if section.method not in methods:
        raise plugins.unknown(
            section.method, [*methods, *plugins.discover("compressor.gates", Gate)], where="compress.method"
        )
    kind = methods[section.method]
    return kind(**plugins.read_options(kind, section.options, where="compress.options"))


def first_method(section: CompressSection) -> Method | None:
    """Return the method that ranks units before anything is trained: none where gates start open.

    Raises:
        InputError: method, options or epochs are at fault.
    """
    if not is_gate(section):
        method = make_method(section)
        if section.epochs is not None:
            cure = "remove the key, or choose a gate as the method (`compressor methods`)"
            raise InputError(f"'{section.method}' trains nothing", where="compress.epochs", cure=cure)
        return method
    init = read_gate(section)[1].init
    if init == "open":
        return None
    return plugins.find("compressor.selection.methods", Method, init, where="compress.options.init")()
