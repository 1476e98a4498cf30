"""Calls that may never return, such as Ray's when one of its processes hangs: each runs in a thread of its own.

A thread cannot be ended from outside. One that hangs is left behind, and the process must then end by force: Python
itself would wait for it (`command_line.leave`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

abandoned: list[str] = []
"""The names of threads that were left behind, and may hang for ever."""


class ThreadCall:
    """A function without arguments, called in a daemon thread. error: what it raised, None if it raised nothing."""

    def __init__(self, function: Callable[[], Any], name: str) -> None:
        import threading  # not above: every command imports this file, and few start a thread

        self._function, self.name = function, name
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._function()
        except BaseException as error:  # for the caller's thread to raise
            self.error = error

    def ended(self, seconds: float) -> bool:
        """Whether the call has ended, waiting for that at most so many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """Leave the thread behind: this process then ends by force."""
        abandoned.append(self.name)

    def raise_error(self) -> None:
        """Raise what the call raised, if it raised something."""
        if self.error is not None:
            raise self.error


def call_within(function: Callable[[], Any], seconds: float, name: str) -> None:
    """Call a function that may never return. What it raises is raised; after so many seconds it is left behind."""
    call = ThreadCall(function, name)
    if call.ended(seconds):
        call.raise_error()
    else:
        call.abandon()
