"""Ctrl-C that Python drops: it raises `KeyboardInterrupt` wherever the main thread is, and no exception can leave the
callback of a weak reference or a `__del__`. Python then prints "Exception ignored in" and goes on."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

AGAIN_AFTER_SECONDS = 0.05
"""Until a dropped Ctrl-C is sent again: the callback has ended then."""


def _interrupt_main_thread() -> None:
    """Send SIGINT to the main thread. `_thread.interrupt_main` sends none: it would not end a wait for a lock or a
    file."""
    # Where SIGINT is ignored or ends the process, no handler raised the exception, and none would raise it again.
    main = threading.main_thread().ident
    if main is not None and callable(signal.getsignal(signal.SIGINT)):
        signal.pthread_kill(main, signal.SIGINT)


@contextlib.contextmanager
def lost_interruptions_sent_again() -> Iterator[None]:
    """For a command line: while the block runs, a Ctrl-C that was dropped is sent again, until it is raised."""
    before, waiting = sys.unraisablehook, list[threading.Timer]()

    def hook(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        timer = threading.Timer(AGAIN_AFTER_SECONDS, _interrupt_main_thread)
        timer.daemon = True
        waiting.append(timer)
        timer.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in waiting:
            timer.cancel()
