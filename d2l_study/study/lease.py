"""One driver per study: a lease with a heartbeat, so that two drivers never work on one study at once."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from d2l_study.errors import UserError
from d2l_study.study.folder import StudyFolder

BEAT_SECONDS = 5.0
STALE_SECONDS = 45.0
"""A lease not renewed for so long belongs to nobody (a driver of this host that is gone frees it at once)."""


@contextlib.contextmanager
def lease(folder: StudyFolder) -> Iterator[None]:
    """Hold the study while the block runs; `UserError` that names the other driver if there is one."""
    key = f"{folder.key}/lease.json"
    mark = uuid.uuid4().hex
    stop, begun = threading.Event(), time.time()

    def content() -> bytes:
        return json.dumps(
            {"mark": mark, "host": socket.gethostname(), "pid": os.getpid(), "begun": begun, "beat": time.time()}
        ).encode()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                folder.storage.put(key, content())

    if not folder.storage.put_if_absent(key, content()):
        other = holder(folder)
        if other is not None:
            raise UserError(
                f"study {folder.name!r} is being run by process {other['pid']} on {other['host']}; wait for it, "
                "end that process, or give this one another name with --study"
            )
        folder.storage.put(key, content())
        # Of two drivers that find the same dead lease, the one whose mark stays goes on.
        time.sleep(0.2)
        taken = _read(folder, key)
        if taken is None or taken["mark"] != mark:
            raise UserError(f"study {folder.name!r} was taken up by another driver at this moment; try again")
    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        mine = _read(folder, key)
        if mine is not None and mine["mark"] == mark:
            folder.storage.delete(key)


def holder(folder: StudyFolder) -> dict[str, Any] | None:
    """The driver at work on a study (`pid`, `host`, `begun` and `beat` in seconds since 1970), or None."""
    found = _read(folder, f"{folder.key}/lease.json")
    return found if found is not None and _alive(found) else None


def _read(folder: StudyFolder, key: str) -> dict[str, Any] | None:
    try:
        return json.loads(folder.storage.read(key))
    except (OSError, ValueError):
        return None


def _alive(driver: dict[str, Any]) -> bool:
    if driver["host"] == socket.gethostname():
        try:
            os.kill(int(driver["pid"]), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
    # A process number may have been given to somebody else since, so the beat decides.
    return time.time() - float(driver["beat"]) < STALE_SECONDS
