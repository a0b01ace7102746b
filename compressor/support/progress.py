"""What a run tells while it works: a log, and on stderr lines and bars for people or events for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 15.0
SECONDS_BETWEEN_EVENTS = 1.0
MOST_SHOWN = 0.99


Listener = Callable[[str, int, dict[str, float]], None]
"""Told the title of a task whenever it advances, the steps that are done, and the values of this step."""


class Say(Protocol):
    """Tells that something has happened."""

    def __call__(self, text: str, *, event: str = "message", **values: object) -> None:
        """Say it in words, and for programs as an event with its values."""


class Advance(Protocol):
    """Tells how far a task is."""

    def __call__(self, done: int, total: int, note: str = "", **values: float) -> None:
        """Say that `done` of `total` steps are done: with a note for people, and its values for programs."""


class Journal:
    """Tells a run's story.

    Args:
        path: The log, which is appended to.
        quiet: Tell nothing: another process does.
        events: Write events to stderr, each a JSON object on a line of its own, instead of words and bars.

    Attributes:
        listener: Told about all progress as well.
    """

    listener: Listener | None = None

    def __init__(self, path: Path, *, quiet: bool = False, events: bool = False) -> None:
        self.path, self.quiet, self.events = path, quiet, events
        self.console = Console(stderr=True, highlight=False, quiet=quiet)

    def say(self, text: str, *, event: str = "message", **values: object) -> None:
        """Write one line, with the time, to the log and to stderr."""
        if self.quiet:
            return
        with self.path.open("a", encoding="utf-8") as log:
            log.write(f"{_now()} {text}\n")
        if self.events:
            write_event(event, text=text, **values)
        else:
            self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str) -> Iterator[Advance]:
        """Show while the body runs how far it is and how long it will take. The share shown never falls.

        On a terminal that is a bar; elsewhere a line now and then, on stderr and in the log; or events.
        """
        share = _Share()
        with self._shown(title) as show:

            def advance(done: int, total: int, note: str = "", **values: float) -> None:
                show(done, total, note, share=share(done, total), **values)
                if self.listener and not self.quiet:
                    self.listener(title, done, values)

            yield advance

    @contextmanager
    def _shown(self, title: str) -> Iterator[Callable[..., None]]:
        if self.quiet:
            yield lambda done, total, note="", **values: None
        elif self.events:
            yield _Pace(SECONDS_BETWEEN_EVENTS, lambda note, **values: write_event("progress", task=title, **values))
        elif self.console.is_interactive and sys.stderr.isatty():
            with self._live(title) as advance:
                yield advance
        else:
            yield _Pace(SECONDS_BETWEEN_LINES, lambda note, **values: self.say(_line(title, note, **values)))

    @contextmanager
    def _live(self, title: str) -> Iterator[Callable[..., None]]:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        note_column = TextColumn("{task.fields[note]}", markup=False)
        with Progress(*columns, note_column, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=None, note="")

            def advance(done: int, total: int, note: str = "", *, share: float, **values: float) -> None:
                progress.update(task, completed=share, total=1.0, note=note)

            yield advance


class _Share:
    """The share of a task that is done. Where its total grows, what is left of the share is spread over more steps.

    It ends at `MOST_SHOWN`: while the task goes on, its total may still grow.
    """

    def __init__(self) -> None:
        self._done = self._total = self._from = 0
        self._share = self._shown = 0.0

    def __call__(self, done: int, total: int) -> float:
        if total != self._total:
            self._total, self._from, self._share = total, self._done, self._shown
        self._done = done
        left = max(1, total - self._from)
        self._shown = max(self._shown, min(MOST_SHOWN, self._share + (1 - self._share) * (done - self._from) / left))
        return self._shown


class _Pace:
    """Passes on how far a task is, at most once in so many seconds, with the seconds that it took and will take."""

    def __init__(self, every: float, tell: Callable[..., None]) -> None:
        self._every, self._tell = every, tell
        self._started = self._told = time.monotonic()
        self._begin: tuple[float, int] | None = None

    def __call__(self, done: int, total: int, note: str = "", **values: float) -> None:
        now = time.monotonic()
        since, first = self._begin = self._begin or ((now, done) if done > 1 else (self._started, 0))
        if now - self._told < self._every or done == first:
            return
        self._told = now
        left = (now - since) / (done - first) * (total - done)
        self._tell(note, done=done, total=total, seconds=now - self._started, seconds_left=left, **values)


def write_event(event: str, **values: object) -> None:
    """Write an event to stderr, for programs: one JSON object on a line of its own."""
    rounded = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in values.items()}
    print(json.dumps({"event": event, "time": _now(), **rounded}), file=sys.stderr, flush=True)


def _line(title: str, note: str, *, share: float, seconds_left: float, **values: float) -> str:
    minutes, seconds = divmod(round(seconds_left), 60)
    text = f"{title}: {share:.0%}, {minutes}:{seconds:02} left"
    return f"{text}, {note}" if note else text


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
