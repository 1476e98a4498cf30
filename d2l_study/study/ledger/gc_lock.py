"""`gc.json`, the lock of the command `gc`: the collection at work on a root, or the last one that ended.

A collection may not delete what a study that begins at the same time is going to use. The collection takes the lock,
reads the plans of all studies, deletes, and writes its end into the lock. A study reads the lock, then the ledger,
writes its plan, and reads the lock again. So either the collection finds the plan, or the study finds that the lock has
changed. Then it waits for the end of the collection and reads the ledger again.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from d2l_study.errors import UserError
from d2l_study.study.ledger import heartbeat, records
from d2l_study.study.ledger.storage import Storage

KEY = "gc.json"
BEAT_SECONDS = 3.0
ENDED = " ended"


@contextlib.contextmanager
def gc_lock_held(storage: Storage) -> Iterator[None]:
    """A context that holds the lock of a root; `UserError` if another collection holds it."""
    mark = uuid.uuid4().hex
    over = threading.Event()

    def content() -> bytes:
        return records.encode(heartbeat.new_heartbeat(mark))

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                storage.put(KEY, content(), durable=False)

    if not storage.put_if_absent(KEY, content(), durable=False):
        _refuse_if_alive(storage)
        storage.put(KEY, content(), durable=False)
        time.sleep(0.2)  # of two that find an old lock, the one whose mark stays goes on
    if last_collection(storage) != mark:
        raise UserError(f"another gc was begun on {storage.root} at this moment; try again")
    thread = threading.Thread(target=beat, name="gc", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(OSError):
            storage.put(KEY, records.encode({"mark": f"{mark}{ENDED}"}))


def _refuse_if_alive(storage: Storage) -> None:
    other = _read(storage)
    if other is not None and heartbeat.is_alive(other, lambda: _read(storage), BEAT_SECONDS):
        raise UserError(f"gc is at work on {storage.root} already: process {other['pid']} on {other['host']}")


def last_collection(storage: Storage) -> str:
    """A mark that changes whenever a collection begins or ends; empty if there was none yet."""
    try:
        found = records.decode(storage.read(KEY))
    except FileNotFoundError:
        return ""
    return str(found.get("mark")) if isinstance(found, dict) else "damaged"


def wait_for_collection(storage: Storage, since: str) -> bool:
    """Called after a study has written its plan: wait for the end of a collection that is at work.

    since: `last_collection` before the study read the ledger. Returns whether a collection may have deleted anything
    since then, so that the study has to read the ledger again."""
    _wait(storage)
    now = last_collection(storage)
    return now != since or not (now == "" or now.endswith(ENDED))


def _wait(storage: Storage) -> None:
    said = False
    while (found := _read(storage)) is not None and heartbeat.is_alive(found, lambda: _read(storage), BEAT_SECONDS):
        if not said:
            print(f"  waiting for gc, process {found['pid']} on {found['host']}, to end …", flush=True)
            said = True
        time.sleep(0.5)


def _read(storage: Storage) -> dict[str, Any] | None:
    try:
        found = records.decode(storage.read(KEY))
    except FileNotFoundError:
        return None
    return found if heartbeat.is_heartbeat(found) else None
