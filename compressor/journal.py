"""What a run tells while it works: lines in a log and on stderr, and progress bars on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Advance(Protocol):
    """Moves a progress bar."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Say that `done` of `total` steps are done."""


class Journal:
    """Tells a run's story.

    Args:
        path: The log, which is appended to.
        quiet: Tell nothing: another process does.
    """

    def __init__(self, path: Path, *, quiet: bool = False) -> None:
        self.path, self.quiet = path, quiet
        self.console = Console(stderr=True, highlight=False, quiet=quiet)

    def say(self, text: str) -> None:
        """Write one line, with the time, to the log and to stderr."""
        if self.quiet:
            return
        with self.path.open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text}\n")
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str) -> Iterator[Advance]:
        """Show a progress bar with the time left while the body runs; nothing where stderr is no terminal."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        note_column = TextColumn("{task.fields[note]}", markup=False)
        with Progress(
            *columns,
            note_column,
            console=self.console,
            transient=True,
            disable=self.quiet or not self.console.is_terminal,
        ) as progress:
            task = progress.add_task(title, total=None, note="")

            def advance(done: int, total: int, note: str = "") -> None:
                progress.update(task, completed=done, total=total, note=note)

            yield advance
