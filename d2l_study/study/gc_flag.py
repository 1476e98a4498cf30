"""`gc.json`: a collection is at work on the root. It and a study that begins must not miss each other.

A collection raises the flag and then reads the plans; a study writes its plan and then looks for the flag. Whatever the
order, either the collection finds the plan, or the study finds the flag, waits, and looks again at what there is.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from d2l_study.errors import UserError
from d2l_study.study import heartbeat, records
from d2l_study.study.storage import Storage

KEY = "gc.json"
BEAT_SECONDS = 3.0


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
        other = _read(storage)
        if other is not None and heartbeat.is_alive(other, lambda: _read(storage), BEAT_SECONDS):
            raise UserError(f"gc is at work on {storage.root} already: process {other['pid']} on {other['host']}")
        storage.put(KEY, sign(), durable=False)
    thread = threading.Thread(target=beat, name="gc", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(OSError):
            storage.delete(KEY)


def waited_for_collection(storage: Storage) -> bool:
    """For who has just written a plan: whether a collection was at work, which has ended now. Then what the ledger
    holds is to be looked at again."""
    found = _read(storage)
    if found is None or not heartbeat.is_alive(found, lambda: _read(storage), BEAT_SECONDS):
        return False
    print(f"  waiting for gc, process {found['pid']} on {found['host']}, to end …", flush=True)
    while (found := _read(storage)) is not None and heartbeat.is_alive(found, lambda: _read(storage), BEAT_SECONDS):
        time.sleep(0.5)
    return True


def _read(storage: Storage) -> dict[str, Any] | None:
    try:
        found = records.decode(storage.read(KEY))
    except FileNotFoundError:
        return None
    return found if heartbeat.is_sign(found) else None
