"""Letting a step be finished, and its result be saved, before a signal ends the program."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While it is entered, the first SIGINT or SIGTERM is only noted; a second one ends the program at once.

    Outside the main thread, where Python allows no handlers, signals do what they did before.

    Attributes:
        asked: Whether a signal has come. Whoever sees it saves what there is, and raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.asked = False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
