"""The order of work: teachers before their students, without a barrier for anybody else (architecture, decision 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from d2l_study.study.folder import StudyFolder
from d2l_study.study.ledger import trial_id
from d2l_study.study.trial import TrialOrder, now


class OrderQueue:
    """Hands out the orders of one command, each when the teachers it learns from are committed.

    Of those that are ready the first goes first. An order whose teacher failed is not handed out: its runs are marked
    as not run, with the reason, and it is listed in `blocked` until somebody takes it from there.
    """

    def __init__(self, orders: Sequence[TrialOrder], folder: StudyFolder) -> None:
        self._folder = folder
        self._waiting = list(orders)
        self._at_work = {(order.config_id, r) for order in orders for r in order.replicates}
        self.blocked: list[TrialOrder] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self) -> TrialOrder | None:
        """The next order that can be run now; None if each one left waits for a teacher, or none is left."""
        for order in list(self._waiting):
            if any((teacher, r) in self._at_work for teacher in order.teachers for r in order.replicates):
                continue
            self._waiting.remove(order)
            ready = self._ready(order)
            if ready:
                return replace(order, replicates=ready)
            self._settle(order)
            self.blocked.append(order)
        return None

    def settled(self, order: TrialOrder) -> None:
        """An order that was handed out has ended, well or badly: its students need not wait any more."""
        self._settle(order)

    def _settle(self, order: TrialOrder) -> None:
        self._at_work -= {(order.config_id, r) for r in order.replicates}

    def _ready(self, order: TrialOrder) -> tuple[int, ...]:
        """The replicates whose teachers are all there; the others get their failure written."""
        ready = []
        for replicate in order.replicates:
            causes = [cause for t in order.teachers if (cause := self._why_not(t, replicate)) is not None]
            if not causes:
                ready.append(replicate)
                continue
            failure = {"cause": causes[0], "log": "", "kind": "teacher", "at": now()}
            self._folder.write_failure(order.config_id, replicate, failure)
            self._at_work.discard((order.config_id, replicate))
        return tuple(ready)

    def _why_not(self, teacher: str, replicate: int) -> str | None:
        record = self._folder.ledger.read(teacher, replicate)
        name = f"its teacher {trial_id(teacher)} r{replicate:03d}"
        if record is None:
            failure = self._folder.failure(teacher, replicate)
            return f"{name} was not trained" + (f": {failure['cause']}" if failure else "")
        if record["row"]["status"] != "done":
            return f"{name} failed: {record['row']['cause']}"
        return None
