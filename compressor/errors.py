"""What can go wrong for a user, and the exit code that each kind ends with."""

from __future__ import annotations


class CompressorError(Exception):
    """Base of all errors that are shown to the user as one message, without a traceback.

    Args:
        problem: What is wrong, in one sentence.
        where: The file, field or layer at fault.
        cure: What the user can do about it.
    """

    exit_code = 2

    def __init__(self, problem: str, *, where: str | None = None, cure: str | None = None) -> None:
        self.problem, self.where, self.cure = problem, where, cure
        message = f"{where}: {problem}" if where else problem
        super().__init__(f"{message}\n  cure: {cure}" if cure else message)


class InputError(CompressorError):
    """The recipe, checkpoint, data or model is at fault (exit code 2)."""


class MachineError(CompressorError):
    """This machine cannot do it: a provider is missing, the disk is full (exit code 3)."""

    exit_code = 3


class LeaderStopped(CompressorError):
    """Rank 0 of several processes could not go on, and says why itself.

    Args:
        exit_code: That it ends with.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("rank 0 ended this run")
        self.exit_code = exit_code
