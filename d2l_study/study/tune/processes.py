"""The processes that a study starts on this machine, so that none of them is left when it ends."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any

KILL_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36


@contextlib.contextmanager
def child_processes() -> Iterator[Callable[[], None]]:
    """Keep account of the processes that are started within the block, and of those that these start.

    The block gets a function that kills them all: a process that is stopped (SIGSTOP) obeys nothing milder. On Linux
    this process adopts orphans among them, and so does not lose sight of a process whose own parent dies.
    """
    psutil = _psutil()
    me = psutil.Process()
    before = set(me.children(recursive=True))

    def kill_all() -> None:
        left: list[Any] = []
        for _ in range(20):  # some may be started while others end
            left = [one for one in me.children(recursive=True) if one not in before]
            if not left:
                return
            for one in left:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            psutil.wait_procs(left, timeout=KILL_SECONDS / 20)

    _adopt_orphans(True)
    try:
        yield kill_all
    finally:
        _adopt_orphans(False)


def children_named(*names: str) -> list[Any]:
    """This process's children of those names, and their children, as `psutil.Process`."""
    psutil = _psutil()
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if one.name() in names:
                found.append(one)
    return found


def process_state(process: Any) -> str:
    """Of a `psutil.Process`: `running`, `stopped` or `ended`."""
    psutil = _psutil()
    try:
        status = process.status()
    except psutil.Error:
        return "ended"
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) or not process.is_running():
        return "ended"
    return "stopped" if status == psutil.STATUS_STOPPED else "running"


def _psutil() -> Any:
    import ray  # noqa: F401 -- it brings psutil, and puts it where it can be imported

    import psutil  # type: ignore[import-not-found,import-untyped,unused-ignore]  # isort: skip

    return psutil


def _adopt_orphans(wanted: bool) -> None:
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)
