"""The task that a recipe names."""

from __future__ import annotations

from compressor.support import plugins
from compressor.tasks.base import Task


def find_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        InputError: there is no such task; the message lists the nearest name and all others.
    """
    return plugins.find("compressor.tasks", Task, name, where="task")()
