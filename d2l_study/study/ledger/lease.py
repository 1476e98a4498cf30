"""One driver per study: a lease with a heartbeat, so that two drivers never work on one study at once.

The lease is also how others see and reach the driver, wherever it runs: it tells its progress with every beat, and
looks for `stop.json`, by which `python -m d2l_study stop STUDY` asks it to end.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from d2l_study.errors import UserError
from d2l_study.study.ledger import heartbeat, records
from d2l_study.study.ledger.study_folder import StudyFolder

BEAT_SECONDS = 3.0
"""A lease that is not renewed belongs to nobody after `heartbeat.STALE_SECONDS`, and at once if its driver was of this
machine and has ended."""


class Lease:
    """A study held by this process, until somebody asks it to end: a person (`stop`), a signal, the study itself.

    progress: called with every beat; a dictionary of plain values that `status` shows.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.begun = time.time()
        self.progress: Callable[[], dict[str, Any]] | None = None
        self.ending = threading.Event()
        self.reason: str | None = None

    def end(self, reason: str) -> None:
        """Ask the study to end; the first reason stays."""
        if not self.ending.is_set():
            self.reason = reason
            self.ending.set()

    @property
    def key(self) -> str:
        return _key(self.folder)

    def content(self) -> bytes:
        return records.encode(heartbeat.sign(self.mark, begun=self.begun, progress=self._progress()))

    def _progress(self) -> dict[str, Any] | None:
        with contextlib.suppress(RuntimeError):  # it changed while it was looked at: the next beat tells it
            return self.progress() if self.progress is not None else None
        return None

    def beat(self) -> None:
        """Renew the lease, and see whether it is still ours and whether somebody asks for an end."""
        there = _read(self.folder)
        if there is not None and there["mark"] != self.mark:
            self.end("another driver has taken up the study, which was not heard of for long")
            return
        self.folder.storage.put(self.key, self.content())
        asked = _decoded(self.folder, _stop_key(self.folder))
        if isinstance(asked, dict) and asked.get("mark") == self.mark:
            self.end(f"`stop` was said on {asked.get('host')}")


@contextlib.contextmanager
def lease(folder: StudyFolder) -> Iterator[Lease]:
    """Hold the study while the block runs; `UserError` that names the other driver if there is one."""
    mine = Lease(folder)
    if not folder.storage.put_if_absent(mine.key, mine.content()):
        _refuse_if_held(folder)
        folder.storage.put(mine.key, mine.content())
        # Of two drivers that find the same dead lease, the one whose mark stays goes on.
        time.sleep(0.2)
    if not folder.storage.exclusive:
        time.sleep(0.5)
    there = _read(folder)
    if there is None or there["mark"] != mine.mark:
        raise UserError(f"study {folder.name!r} was taken up by another driver at this moment; try again")
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                mine.beat()

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield mine
    finally:
        over.set()
        thread.join()
        there = _read(folder)
        if there is not None and there["mark"] == mine.mark:
            with contextlib.suppress(OSError):
                folder.storage.delete(_stop_key(folder))
            with contextlib.suppress(OSError):
                folder.storage.delete(mine.key)


def stop_command(folder: StudyFolder) -> str:
    return shlex.join(["python", "-m", "d2l_study", "stop", folder.name, "--root", str(folder.storage.root)])


def _refuse_if_held(folder: StudyFolder) -> None:
    other = _read(folder)
    if other is not None and heartbeat.is_alive(other, lambda: _read(folder), BEAT_SECONDS):
        raise UserError(
            f"study {folder.name!r} is being run by process {other['pid']} on {other['host']}; wait for it, "
            f"end it ({stop_command(folder)}), or give this one another name with --study"
        )


def holder(folder: StudyFolder) -> dict[str, Any] | None:
    """The driver at work on a study (`mark`, `pid`, `host`, `begun` and `beat` in seconds since 1970, `progress`), or
    None."""
    found = _read(folder)
    return found if found is not None and heartbeat.seems_alive(found) else None


def ask_to_stop(folder: StudyFolder, driver: dict[str, Any], wait_seconds: float) -> bool:
    """Ask a driver (from `holder`) to end; True as soon as it has, False if it has not after so long."""
    request = {"mark": driver["mark"], "host": socket.gethostname(), "at": time.time()}
    folder.storage.put(_stop_key(folder), records.encode(request))
    deadline = time.monotonic() + wait_seconds
    while (now := holder(folder)) is not None and now["mark"] == driver["mark"]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def _key(folder: StudyFolder) -> str:
    return f"{folder.key}/lease.json"


def _stop_key(folder: StudyFolder) -> str:
    return f"{folder.key}/stop.json"


def _read(folder: StudyFolder) -> dict[str, Any] | None:
    """The lease of a study; None if there is none, or what is there is none."""
    found = _decoded(folder, _key(folder))
    if not heartbeat.is_sign(found):
        return None
    begun, progress = found.get("begun", found["beat"]), found.get("progress") or {}
    sound = isinstance(begun, (int, float)) and isinstance(progress, dict)
    return {**found, "progress": progress} if sound else None


def _decoded(folder: StudyFolder, key: str) -> Any:
    try:
        return records.decode(folder.storage.read(key))
    except OSError:
        return None
