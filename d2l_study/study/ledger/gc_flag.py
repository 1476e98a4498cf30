"""`gc.json`: the collection at work on a root, or the last one. It and a study that begins must not miss each other.

A collection raises the flag, reads the plans, deletes, and notes its end; a study looks for the note, then at the
ledger, writes its plan, and looks for the note again. Either the collection finds the plan, or the study finds another
note than before, and looks at the ledger again once the collection has ended.
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
def flag_raised(storage: Storage) -> Iterator[None]:
    """While the block runs, the root says that a collection is at work; `UserError` if another one is."""
    mark = uuid.uuid4().hex
    over = threading.Event()

    def sign() -> bytes:
        return records.encode(heartbeat.sign(mark))

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                storage.put(KEY, sign(), durable=False)

    if not storage.put_if_absent(KEY, sign(), durable=False):
        _refuse_if_alive(storage)
        storage.put(KEY, sign(), durable=False)
        time.sleep(0.2)  # of two that find an old note, the one whose mark stays goes on
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
    """A mark of the last collection, another one once it has ended; empty if there was none."""
    try:
        found = records.decode(storage.read(KEY))
    except FileNotFoundError:
        return ""
    return str(found.get("mark")) if isinstance(found, dict) else "damaged"


def waited_for_collection(storage: Storage, since: str) -> bool:
    """For who has just written a plan: wait for the end of a collection that is at work. Whether one may have deleted
    anything after `last_collection` was `since`: then what the ledger holds is to be looked at again."""
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
    return found if heartbeat.is_sign(found) else None
