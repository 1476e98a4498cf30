"""The order of work: teachers before their students, without a barrier for anybody else (architecture, decision 4).

A search adds its orders as it goes: each time there is a place for a trial, a point is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from d2l_study.study.ledger.claims import claimed_by_others
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.trial.trial import now
from d2l_study.study.trial.trial_request import TrialRequest

if TYPE_CHECKING:
    from d2l_study.study.search.search import Search, Trial


class OrderQueue:
    """Hands out the orders of one command, each when the teachers it learns from are committed.

    Of those that are ready the first goes first. An order whose teacher failed is not handed out: its runs are marked
    as not run, with the reason, and it is listed in `blocked` until somebody takes it from there.
    """

    def __init__(self, orders: Sequence[TrialRequest], folder: StudyFolder) -> None:
        self._folder = folder
        self._waiting = list(orders)
        self._at_work = {(order.config_id, r) for order in orders for r in order.replicates}
        self.blocked: list[TrialRequest] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, orders: Sequence[TrialRequest]) -> None:
        """More work, behind what is there."""
        self._waiting.extend(orders)
        self._at_work |= {(order.config_id, r) for order in orders for r in order.replicates}

    def next(self) -> TrialRequest | None:
        """The next order that can be run now; None if each one left waits for a teacher, or none is left."""
        for order in self._can_run():
            self._waiting.remove(order)
            ready = self._ready(order)
            if ready:
                return replace(order, replicates=ready)
            self._settle(order)
            self.blocked.append(order)
        return None

    def _can_run(self) -> Iterator[TrialRequest]:
        """The waiting orders whose teachers are not at work; last those whose first run another study is training at
        the moment, which this one would wait for."""
        claimed = []
        for order in list(self._waiting):
            if any((teacher, r) in self._at_work for teacher in order.teachers for r in order.replicates):
                continue
            if not order.fresh and claimed_by_others(self._folder.ledger, order.config_id, order.replicates[0]):
                claimed.append(order)
            else:
                yield order
        yield from claimed

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting and nothing is at work; as long as something is, it may come back."""
        return not len(self) and not self._at_work

    def again(self, orders: Sequence[TrialRequest]) -> None:
        """An order that was lost, to be handed out once more before all others, whole or in pieces."""
        self._waiting[:0] = orders

    def settled(self, order: TrialRequest) -> None:
        """An order that was handed out has ended, well or badly: its students need not wait any more."""
        self._settle(order)

    def _settle(self, order: TrialRequest) -> None:
        self._at_work -= {(order.config_id, r) for r in order.replicates}

    def _ready(self, order: TrialRequest) -> tuple[int, ...]:
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
        record = self._folder.ledger.read(teacher, replicate, self._folder.fresh_of)
        name = f"its teacher {trial_id(teacher)} r{replicate:03d}"
        if record is None:
            failure = self._folder.failure(teacher, replicate)
            return f"{name} was not trained" + (f": {failure['cause']}" if failure else "")
        if record["row"]["status"] != "done":
            return f"{name} failed: {record['row']['cause']}"
        return None


class SearchQueue(OrderQueue):
    """Hands out the open trials of a search, and asks for another whenever none is ready and there is a place.

    make_orders: a trial just asked -> the orders of what it needs that is neither committed nor at work; planned:
    config_id -> the replicates of every configuration asked, which `make_orders` extends; concurrent: at most so many
    trials are asked and not told; limit: at most so many are asked this time.
    """

    def __init__(
        self, search: Search, orders: Sequence[TrialRequest], folder: StudyFolder,
        make_orders: Callable[[Trial], Sequence[TrialRequest]], planned: dict[str, list[int]], concurrent: int,
        limit: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(orders, folder)
        self._search, self._make, self._planned, self._concurrent = search, make_orders, planned, concurrent
        self._may_ask = search.left if limit is None else min(search.left, limit)

    def __len__(self) -> int:
        return super().__len__() + self._may_ask

    def next(self) -> TrialRequest | None:
        while True:
            order = super().next()
            for gone in self.blocked:  # a teacher of theirs failed: a point that is told as failed
                self._search.settle(self._planned, gone.config_id)
            if order is not None or not self._may_ask or len(self._search.open) >= self._concurrent:
                return order
            trial = self._search.ask()
            if trial is None:
                self._may_ask = 0
                return None
            self._may_ask -= 1
            self.add(self._make(trial))
            self._search.settle(self._planned, trial.config_id)  # the runs may be there, of this study or another

    def settled(self, order: TrialRequest) -> None:
        super().settled(order)
        self._search.settle(self._planned, order.config_id)
