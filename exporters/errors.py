"""What can go wrong between a module and a measured file."""

from __future__ import annotations

CURE = "check the path, or export the model again"
"""What helps against a file that is not a model."""


class ExportError(Exception):
    """Base of all errors of this package; its message is complete without a traceback.

    Args:
        problem: What is wrong, in one sentence.
        where: The file or layer at fault.
        cure: What the user can do about it.

    Example:
        >>> raise exporters.ExportError("there is nothing to measure", cure="name at least one ONNX file")
        Traceback (most recent call last):
        exporters.errors.ExportError: there is nothing to measure
          cure: name at least one ONNX file
    """

    def __init__(self, problem: str, *, where: str | None = None, cure: str | None = None) -> None:
        self.problem, self.where, self.cure = problem, where, cure
        message = f"{where}: {problem}" if where else problem
        super().__init__(f"{message}\n  cure: {cure}" if cure else message)


class InvalidModelError(ExportError):
    """The file is not an ONNX model that can be read, or not the one it is taken for.

    Example:
        >>> exporters.count_nodes("missing.onnx")
        Traceback (most recent call last):
        exporters.errors.InvalidModelError: ...
    """


class ProviderUnavailableError(ExportError):
    """The execution provider that was asked for is not active on this machine.

    Example:
        >>> exporters.create_session("dense.onnx", provider="abacus")
        Traceback (most recent call last):
        exporters.errors.ProviderUnavailableError: 'abacus' is not known...
    """
