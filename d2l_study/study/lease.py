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
    stop = threading.Event()

    def content() -> bytes:
        return json.dumps(
            {"mark": mark, "host": socket.gethostname(), "pid": os.getpid(), "beat": time.time()}
        ).encode()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                folder.storage.put(key, content())

    if not folder.storage.put_if_absent(key, content()):
        holder = _read(folder, key)
        if holder is not None and _alive(holder):
            raise UserError(
                f"study {folder.name!r} is being run by process {holder['pid']} on {holder['host']}; wait for it, "
                "end that process, or give this one another name with --study"
            )
        folder.storage.put(key, content())
        # Of two drivers that find the same dead lease, the one whose mark stays goes on.
        time.sleep(0.2)
        holder = _read(folder, key)
        if holder is None or holder["mark"] != mark:
            raise UserError(f"study {folder.name!r} was taken up by another driver at this moment; try again")
    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        holder = _read(folder, key)
        if holder is not None and holder["mark"] == mark:
            folder.storage.delete(key)


def _read(folder: StudyFolder, key: str) -> dict[str, Any] | None:
    try:
        return json.loads(folder.storage.read(key))
    except (OSError, ValueError):
        return None


def _alive(holder: dict[str, Any]) -> bool:
    if holder["host"] == socket.gethostname():
        try:
            os.kill(int(holder["pid"]), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
    # A process number may have been given to somebody else since, so the beat decides.
    return time.time() - float(holder["beat"]) < STALE_SECONDS
