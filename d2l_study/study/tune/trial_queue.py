"""Which trial comes next: teachers before their students, and nobody else waits for them.

A search adds its trials as it goes: it is asked for one each time there is room for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from d2l_study.study.ledger.claims import claimed_by_others
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.ledger.timestamps import timestamp
from d2l_study.study.trial.packed_trials import Trial
from d2l_study.study.trial.trial_request import TrialRequest

if TYPE_CHECKING:
    from d2l_study.study.search.search import Search
    from d2l_study.study.search.trial import SearchTrial


class TrialQueue:
    """The trials of one command. Each is given out once the teachers it learns from are committed.

    Of the trials that are ready the first goes first. A request whose teacher failed is not given out: its runs are
    marked as failed, with the reason, and it is listed in `blocked` until somebody takes it from there.
    """

    def __init__(self, trials: Sequence[Trial], folder: StudyFolder) -> None:
        self._folder = folder
        self._waiting: list[Trial] = []
        self._unfinished: set[tuple[str, int]] = set()
        self.blocked: list[TrialRequest] = []
        self.add(trials)

    def __len__(self) -> int:
        """How many trials are still to be given out."""
        return len(self._waiting)

    def add(self, trials: Sequence[Trial]) -> None:
        """Put more trials at the end."""
        self._waiting.extend(trials)
        self._expect(trials)

    def _expect(self, trials: Sequence[Trial]) -> None:
        requests = (request for trial in trials for request in trial)
        self._unfinished |= {(request.config_id, r) for request in requests for r in request.replicates}

    def next(self) -> Trial | None:
        """The next trial that can be run now; None if none is left, or each of them waits for a teacher."""
        for trial in self._candidates():
            self._waiting.remove(trial)
            found = [(request, self._replicates_with_teachers(request)) for request in trial]
            for request in (request for request, replicates in found if not replicates):
                self._finish(request)
                self.blocked.append(request)
            if ready := tuple(replace(request, replicates=replicates) for request, replicates in found if replicates):
                return ready
        return None

    def _candidates(self) -> Iterator[Trial]:
        """The waiting trials whose teachers are finished. Last come those whose first run another study is training at
        the moment: this study would wait for it."""
        claimed = []
        for trial in list(self._waiting):
            if any((teacher, r) in self._unfinished for x in trial for teacher in x.teachers for r in x.replicates):
                continue
            first = trial[0]
            if not first.fresh and claimed_by_others(self._folder.ledger, first.config_id, first.replicates[0]):
                claimed.append(trial)
            else:
                yield trial
        yield from claimed

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being trained. A trial in training may be lost, and come back."""
        return not len(self) and not self._unfinished

    def lost(self, trial: Trial, again: Sequence[Trial]) -> None:
        """A trial that was given out was lost. again: what is left of it, which goes before all others."""
        for request in trial:
            self._finish(request)
        self._waiting[:0] = again
        self._expect(again)
        for request in trial:
            if not any((request.config_id, r) in self._unfinished for r in request.replicates):
                self.trial_ended(request)

    def trial_ended(self, request: TrialRequest) -> None:
        """A request that was given out has ended, well or badly: its students need not wait any more."""
        self._finish(request)

    def _finish(self, request: TrialRequest) -> None:
        self._unfinished -= {(request.config_id, r) for r in request.replicates}

    def _replicates_with_teachers(self, request: TrialRequest) -> tuple[int, ...]:
        """The replicates whose teachers are all committed. The failure of the others is written."""
        ready = []
        for replicate in request.replicates:
            causes = [cause for t in request.teachers if (cause := self._teacher_problem(t, replicate)) is not None]
            if not causes:
                ready.append(replicate)
                continue
            failure = {"cause": causes[0], "log": "", "kind": "teacher", "at": timestamp()}
            self._folder.write_failure(request.config_id, replicate, failure)
            self._unfinished.discard((request.config_id, replicate))
        return tuple(ready)

    def _teacher_problem(self, teacher: str, replicate: int) -> str | None:
        """Why no student can learn from a teacher; None if one can."""
        record = self._folder.record(teacher, replicate)
        name = f"its teacher {trial_id(teacher)} r{replicate:03d}"
        if record is None:
            failure = self._folder.failure(teacher, replicate)
            return f"{name} was not trained" + (f": {failure['cause']}" if failure else "")
        if record["row"]["status"] != "done":
            return f"{name} failed: {record['row']['cause']}"
        return None


class SearchQueue(TrialQueue):
    """The open trials of a search. When none of them is ready and there is room, the search is asked for another one.

    make_requests: a trial just asked for -> the requests for what it needs that is neither committed nor in training.
    planned: config_id -> the replicates of every configuration asked for; `make_requests` adds to it.
    concurrent: so many trials at most are open. limit: so many at most are asked for by this command.
    """

    def __init__(
        self, search: Search, requests: Sequence[TrialRequest], folder: StudyFolder,
        make_requests: Callable[[SearchTrial], Sequence[TrialRequest]], planned: dict[str, list[int]], concurrent: int,
        limit: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__([(request,) for request in requests], folder)
        self._search, self._make, self._planned, self._concurrent = search, make_requests, planned, concurrent
        self._left_to_ask = search.left if limit is None else min(search.left, limit)

    def __len__(self) -> int:
        return super().__len__() + self._left_to_ask

    def next(self) -> Trial | None:
        while True:
            found = super().next()
            for blocked in self.blocked:  # a teacher of theirs failed: the search is told that they have, too
                self._search.tell_ended(self._planned, blocked.config_id)
            if found is not None or not self._left_to_ask or len(self._search.open) >= self._concurrent:
                return found
            trial = self._search.ask()
            if trial is None:
                self._left_to_ask = 0
                return None
            self._left_to_ask -= 1
            self.add([(request,) for request in self._make(trial)])
            self._search.tell_ended(self._planned, trial.config_id)  # its runs may be there, of this study or another

    def trial_ended(self, request: TrialRequest) -> None:
        super().trial_ended(request)
        self._search.tell_ended(self._planned, request.config_id)
