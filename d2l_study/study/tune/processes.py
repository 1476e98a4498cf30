"""The processes that a study starts on this machine, all of them, so that none is left when it ends."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any

KILL_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36


@contextlib.contextmanager
def started_here() -> Iterator[Callable[[], None]]:
    """A function that ends every process which was started since the block began, and what those started, by force: a
    stopped process hears nothing else.

    On Linux an orphan among them becomes this process's child, and is not lost sight of when its own parent dies.
    """
    psutil = _psutil()
    me = psutil.Process()
    before = set(me.children(recursive=True))

    def end_all() -> None:
        left: list[Any] = []
        for _ in range(20):  # what is being started while the others end
            left = [one for one in me.children(recursive=True) if one not in before]
            if not left:
                return
            for one in left:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            psutil.wait_procs(left, timeout=KILL_SECONDS / 20)

    _adopt_orphans(True)
    try:
        yield end_all
    finally:
        _adopt_orphans(False)


def of_this_process(*names: str) -> list[Any]:
    """The processes of those names that were started here, as `psutil.Process`."""
    psutil = _psutil()
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if one.name() in names:
                found.append(one)
    return found


def state(process: Any) -> str:
    """`running`, `stopped` or `ended`."""
    psutil = _psutil()
    try:
        found = process.status()
    except psutil.Error:
        return "ended"
    if found in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) or not process.is_running():
        return "ended"
    return "stopped" if found == psutil.STATUS_STOPPED else "running"


def _psutil() -> Any:
    import ray  # noqa: F401 -- it brings psutil, and puts it where it can be imported

    import psutil  # type: ignore[import-not-found,import-untyped,unused-ignore]  # isort: skip

    return psutil


def _adopt_orphans(wanted: bool) -> None:
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)
