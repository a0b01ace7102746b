"""A stage of a run: what it depends on, its work, and how what it left is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from compressor.pipeline.context import RunContext


class Stage(ABC):
    """A stage at work, given the stages that it reads from.

    A stage owns the names of its files: others ask it for what they need, and know none of them.

    Args:
        context: What all stages of the run share.

    Attributes:
        name: In logs, in the report and in the name of its directory.
        together: Whether all processes of the run do the work; otherwise the first one does.
    """

    name: ClassVar[str]
    together: ClassVar[bool] = False

    def __init__(self, context: RunContext) -> None:
        self.context = context

    @cached_property
    def directory(self) -> Path:
        """Where the finished stage has left its files; the first look does its work, unless that is done already."""
        return self.context.stage(self.name, self.depends_on(), self.work, together=self.together)

    @abstractmethod
    def depends_on(self) -> Mapping[str, Any]:
        """Plain values, and files of earlier stages, whose contents count."""

    @abstractmethod
    def work(self, directory: Path) -> None:
        """Do it, and leave files in the directory."""
