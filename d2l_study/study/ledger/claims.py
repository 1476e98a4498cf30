"""Claims: which worker trains a run at present, so that studies side by side share their work.

    ROOT/claims/<mark>.json                 the heartbeat of one worker, renewed every few seconds
    ROOT/results/…/r007/claim.json          the mark of the worker that trains the run

Without claims no result would be lost, since the first valid commit wins, but two studies would train the same run.
A claim is taken over if its worker has ended, or if its heartbeat has not changed for a minute while we watched.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterable
from typing import Any

from d2l_study.study.ledger import heartbeat, records
from d2l_study.study.ledger.ledger import Ledger

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A worker whose heartbeat this process has not seen change for so long is dead; no two clocks are compared."""

TAKEOVER_SECONDS = 0.2
"""How long it is waited, after claims were taken over, for another worker who does so at the same time."""

LOOK_SECONDS = 1.0
"""Between two looks at a run that another worker trains."""


def claim_key(config: str, replicate: int) -> str:
    """The key of a run's claim."""
    return f"{Ledger.run_key(config, replicate)}/claim.json"


class Claims:
    """The runs that this worker has claimed for a study. A context manager: at its end the claims are given up."""

    def __init__(self, ledger: Ledger, study: str) -> None:
        self._storage, self._study = ledger.storage, study
        self.mark = uuid.uuid4().hex
        self._mine: set[str] = set()
        self._seen: dict[str, tuple[float, float]] = {}  # mark -> the last beat, and when it was seen to change
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if not self._thread.is_alive():  # nothing was asked for
            return
        self._thread.join()
        self.release()
        with contextlib.suppress(OSError):
            self._storage.delete(_heartbeat_key(self.mark))

    def release(self) -> None:
        """Give up all runs that were claimed: others may train those that are not committed."""
        with contextlib.suppress(OSError):
            for key in [*self._mine]:
                if self._holder(key) == self.mark:
                    self._storage.delete(key)
                self._mine.discard(key)

    def take(self, config: str, replicates: Iterable[int]) -> list[int]:
        """Claim runs of a configuration; returns the replicates that are ours now. A living worker keeps its own."""
        if not self._thread.is_alive() and not self._over.is_set():
            self._storage.put(_heartbeat_key(self.mark), self._heartbeat(), durable=False)
            self._thread.start()
        keys = {r: claim_key(config, r) for r in replicates}
        surely = {r: found for r, key in keys.items() if (found := self._take(key)) is not None}
        if not all(surely.values()):
            time.sleep(TAKEOVER_SECONDS)
        ours = [r for r, sure in surely.items() if sure or self._holder(keys[r]) == self.mark]
        self._mine.update(keys[r] for r in ours)
        return ours

    def _take(self, key: str) -> bool | None:
        """Put the own mark on a run: True if it is ours then, None if a living worker has it. False if another worker
        may have put its own in the same moment: of two that find the same dead claim, the one whose mark stays trains
        the run."""
        claim = records.encode({"mark": self.mark, "study": self._study})
        if self._storage.put_if_absent(key, claim, durable=False):
            return True if self._storage.exclusive or self._holder(key) == self.mark else None
        holder = self._holder(key)
        if holder is not None:
            if not self._dead(holder):
                return None
            self._storage.delete(_heartbeat_key(holder))
        self._storage.put(key, claim, durable=False)
        return False

    def _holder(self, key: str) -> str | None:
        """The mark of the worker that holds a claim (`holder_of`)."""
        return holder_of(self._storage, key)

    def _dead(self, mark: str) -> bool:
        found = _heartbeat_of(self._storage, mark)
        if found is None or heartbeat.has_ended(found):
            return True
        beat, since = self._seen.get(mark, (None, 0.0))
        now = time.monotonic()
        if beat != found["beat"]:
            self._seen[mark] = (found["beat"], now)
            return False
        return now - since > STALE_SECONDS

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                self._storage.put(_heartbeat_key(self.mark), self._heartbeat(), durable=False)

    def _heartbeat(self) -> bytes:
        return records.encode(heartbeat.new_heartbeat(self.mark, study=self._study))


def holder_of(storage: Any, key: str) -> str | None:
    """The mark of the worker that holds a claim; None if nobody does, or if the claim cannot be read."""
    with contextlib.suppress(FileNotFoundError):
        found = records.decode(storage.read(key))
        if isinstance(found, dict) and isinstance(found.get("mark"), str) and found["mark"].isalnum():
            return found["mark"]
    return None


def claimed_by_others(ledger: Ledger, config: str, replicate: int) -> bool:
    """Whether another worker, which may be alive, has claimed a run. It only decides what is trained first."""
    holder = holder_of(ledger.storage, claim_key(config, replicate))
    if holder is None:
        return False
    found = _heartbeat_of(ledger.storage, holder)
    return found is not None and not heartbeat.has_ended(found)


def _heartbeat_key(mark: str) -> str:
    return f"claims/{mark}.json"


def _heartbeat_of(storage: Any, mark: str) -> dict[str, Any] | None:
    with contextlib.suppress(FileNotFoundError):
        found = records.decode(storage.read(_heartbeat_key(mark)))
        if heartbeat.is_heartbeat(found):
            return found
    return None
