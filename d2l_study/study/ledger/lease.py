"""The lease of a study: a lock with a heartbeat, so that two drivers never work on one study at once.

Other commands see and reach the driver by its lease, wherever it runs. With every beat the driver writes its progress
into the lease, and looks for `stop.json`, by which `d2l stop STUDY` asks it to end.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from d2l_study.command_line import command_text
from d2l_study.errors import UserError
from d2l_study.study.ledger import heartbeat, records
from d2l_study.study.ledger.study_folder import StudyFolder

BEAT_SECONDS = 3.0
"""Between two renewals. A lease is free after `heartbeat.STALE_SECONDS` without one, and at once if its driver ran on
this machine and has ended."""

WATCHED_TOGETHER = 32
"""Leases that are watched at the same time."""


class Lease:
    """The lease of a study that this process holds.

    progress: called with every beat, returns plain values that `status` shows; ending: set once the study is asked to
    end, by a person (`stop`), a signal or the study itself; reason: why.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.begun = time.time()
        self.progress: Callable[[], dict[str, Any]] | None = None
        self.ending = threading.Event()
        self.reason: str | None = None

    def end(self, reason: str) -> None:
        """Ask the study to end; the first reason is kept."""
        if not self.ending.is_set():
            self.reason = reason
            self.ending.set()

    @property
    def key(self) -> str:
        """The key of the lease in the storage."""
        return _key(self.folder)

    def content(self) -> bytes:
        """The record of the lease as it is now."""
        return records.encode(heartbeat.new_heartbeat(self.mark, begun=self.begun, progress=self._progress()))

    def _progress(self) -> dict[str, Any] | None:
        with contextlib.suppress(RuntimeError):  # it changed while it was looked at: the next beat tells it
            return self.progress() if self.progress is not None else None
        return None

    def beat(self) -> None:
        """Renew the lease. End if another driver has taken it, or if `stop` asks for it."""
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
    """A context that holds the lease of a study; `UserError`, which names the other driver, if one holds it."""
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
    """The command that stops a study, for messages."""
    return command_text(shlex.join(["stop", folder.name, "--root", str(folder.storage.root)]))


def _refuse_if_held(folder: StudyFolder) -> None:
    other = _read(folder)
    if other is not None and heartbeat.is_alive(other, lambda: _read(folder), BEAT_SECONDS):
        raise UserError(
            f"study {folder.name!r} is being run by process {other['pid']} on {other['host']}; wait for it, "
            f"end it ({stop_command(folder)}), or give this one another name with --study"
        )


def holder(folder: StudyFolder) -> dict[str, Any] | None:
    """The driver at work on a study, or None: `mark`, `pid`, `host`, `progress`, and `begun` and `beat` in seconds
    since 1970, by the clock of the driver.

    A lease whose time is not recent, but whose driver is not known to have ended, is watched for some seconds, which is
    said: its machine may have another clock."""
    found = _read(folder)
    if found is None or heartbeat.has_ended(found):
        return None
    if not heartbeat.seems_alive(found):
        seconds = round(time.time() - found["beat"])
        when = f"{seconds:,} s ago" if seconds >= 0 else f"{-seconds:,} s ahead"
        print(f"{folder.name}: process {found['pid']} on {found['host']} gave its last sign {when} by the clock of "
              "this machine; looking for some seconds whether it gives another …", flush=True)  # fmt: skip
        if not heartbeat.is_alive(found, lambda: _read(folder), BEAT_SECONDS):
            return None
    return _read(folder) or found


def holders(folders: Sequence[StudyFolder]) -> list[dict[str, Any] | None]:
    """The `holder` of each study; those that are to be watched are watched together."""
    with ThreadPoolExecutor(max(1, min(len(folders), WATCHED_TOGETHER))) as threads:
        return list(threads.map(holder, folders))


def ask_to_stop(folder: StudyFolder, driver: dict[str, Any], wait_seconds: float) -> bool:
    """Ask a driver (from `holder`) to end. Returns True as soon as it has ended, False if it has not after
    `wait_seconds`."""
    request = {"mark": driver["mark"], "host": socket.gethostname(), "at": time.time()}
    folder.storage.put(_stop_key(folder), records.encode(request))
    deadline = time.monotonic() + wait_seconds
    beat, changed = driver["beat"], time.monotonic()
    while (now := _read(folder)) is not None and now["mark"] == driver["mark"] and not heartbeat.has_ended(now):
        if now["beat"] != beat:
            beat, changed = now["beat"], time.monotonic()
        elif time.monotonic() - changed > heartbeat.STALE_SECONDS:  # it has died meanwhile
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def _key(folder: StudyFolder) -> str:
    return f"{folder.key}/lease.json"


def _stop_key(folder: StudyFolder) -> str:
    return f"{folder.key}/stop.json"


def _read(folder: StudyFolder) -> dict[str, Any] | None:
    """The lease of a study; None if there is none, or if it is damaged."""
    found = _decoded(folder, _key(folder))
    if not heartbeat.is_heartbeat(found):
        return None
    begun, progress = found.get("begun", found["beat"]), found.get("progress") or {}
    sound = isinstance(begun, (int, float)) and isinstance(progress, dict)
    return {**found, "progress": progress} if sound else None


def _decoded(folder: StudyFolder, key: str) -> Any:
    try:
        return records.decode(folder.storage.read(key))
    except OSError:
        return None
