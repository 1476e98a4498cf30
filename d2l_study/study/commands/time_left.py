"""How long a study still takes, predicted from what its trials have taken so far.

Trials differ in their predicted work, which is right up to a factor. The factor is measured: seconds of training per
unit of work, of all trials and of each kind (stage and arm). A kind of which little is known is drawn towards all. What
a trial takes besides training (its worker starts, data are read, results are evaluated and written) is measured apart:
at the beginning of a study it is most of the time, and says nothing of the trials that come later. So the work must be
that of training alone: with the test in it the first trials, which are short, make all later ones look faster than they
are. The trials that are left are then laid on the places that train at a time, in their order.
"""

from __future__ import annotations

import functools
import heapq
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

START_SECONDS = 2.0
"""What a trial takes besides training, before the second trial of a place has shown it."""

LEAST_SHARE, LEAST_SECONDS = 0.02, 5.0
"""Nothing is predicted before this share of all work has been seen in training, and this many seconds of it."""

PRIOR_TRIALS = 1.0
"""So many trials of a kind weigh as much as all other trials in the factor of that kind."""

_STEPS = ((90, 10), (600, 60), (3600, 300), (4 * 3600, 900), (24 * 3600, 3600), (float("inf"), 6 * 3600))
"""Below so many seconds a prediction is rounded to so many."""


def rounded_seconds(seconds: float) -> float:
    """A prediction rounded to what is known of it: 10 s below a minute and a half, 5 minutes below an hour."""
    step = next(step for below, step in _STEPS if seconds < below)
    return max(step, round(seconds / step) * step)


@dataclass
class _Progress:
    """A trial that has begun. spent: seconds of a place; first, last: share of the steps and what was spent, at the
    first and the last report; follows: another trial had ended before it began, so that its worker was there."""

    spent: float = 0.0
    first: tuple[float, float] | None = None
    last: tuple[float, float] = (0.0, 0.0)
    follows: bool = False

    @property
    def seen(self) -> tuple[float, float]:
        """The share of the steps, and its seconds, that lie between two reports."""
        if self.first is None:
            return 0.0, 0.0
        return self.last[0] - self.first[0], self.last[1] - self.first[1]


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _locked(method: _Method) -> _Method:
    @functools.wraps(method)
    def one_at_a_time(self: TimeLeft, *arguments: Any) -> Any:
        with self._lock:
            return method(self, *arguments)

    return cast(_Method, one_at_a_time)


class TimeLeft:
    """The prediction for one command. work: of the training of each trial by its key, in any unit and in the order in
    which trials are given out, 0 where nothing is trained; kinds: of trials whose factor is alike; places: trials at a
    time; clock: gives seconds; None: of this machine."""

    def __init__(
        self, work: Mapping[str, float], kinds: Mapping[str, str], places: int,
        clock: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self._work, self._kinds = dict(work), dict(kinds)
        self._places, self._clock = max(1, places), clock or time.monotonic
        self._later, self._later_work = 0, 0.0
        self._running: dict[str, _Progress] = {}
        self._waiting = dict.fromkeys(work)
        self._seen: dict[str, list[float]] = {}  # kind -> work and seconds of training, of trials that have ended
        self._beside: list[float] = []
        self._ended = 0
        self._at = self._clock()
        self._lock = threading.RLock()  # a heartbeat and a live table ask while events come

    # ---- events
    @_locked
    def expect(self, count: int, work: float) -> None:
        """So many trials will be added, of so much work each."""
        self._later, self._later_work = count, work

    @_locked
    def add(self, key: str, work: float, kind: str) -> None:
        self._work[key], self._kinds[key] = work, kind
        self._waiting[key] = None
        self._later = max(0, self._later - 1)

    @_locked
    def started(self, key: str) -> None:
        self._pass_time()
        self._waiting.pop(key, None)
        self._running[key] = _Progress(follows=self._ended > 0)

    @_locked
    def reported(self, key: str, share: float) -> None:
        """share: of the trial's steps that are done, from 0 to 1."""
        self._pass_time()
        trial = self._running[key]
        trial.last = (share, trial.spent)
        trial.first = trial.first or trial.last

    @_locked
    def ended(self, key: str) -> None:
        self._pass_time()
        self._waiting.pop(key, None)
        trial = self._running.pop(key, None)
        if trial is None:
            return
        share, seconds = trial.seen
        if share > 0:
            training = seconds / share
            if trial.follows:
                self._beside.append(max(0.0, trial.spent - training))
        elif not self._work.get(key, 0.0):  # nothing to train, such as a reading of a teacher
            training = 0.0
        else:  # too short for two reports
            training = max(0.1 * trial.spent, trial.spent - self._beside_seconds())
        self._ended += 1
        known = self._seen.setdefault(self._kinds.get(key, ""), [0.0, 0.0, 0.0])
        for i, value in enumerate((self._work.get(key, 0.0), training, 1.0)):
            known[i] += value

    @_locked
    def replaced(self, key: str, pieces: Sequence[str]) -> None:
        """A trial was lost, and is run again in pieces of these keys, before all others."""
        self._pass_time()
        self._running.pop(key, None)
        kind, work = self._kinds.pop(key, ""), self._work.pop(key, 0.0)
        self._waiting = dict.fromkeys([*pieces, *(other for other in self._waiting if other != key)])
        self._work |= dict.fromkeys(pieces, work / max(1, len(pieces)))
        self._kinds |= dict.fromkeys(pieces, kind)

    def _pass_time(self) -> None:
        """Share the time since the last event out to the trials that are running. Trials of one stack hold a place
        together."""
        now = self._clock()
        each = (now - self._at) * min(1.0, self._places / max(1, len(self._running)))
        for trial in self._running.values():
            trial.spent += each
        self._at = now

    # ---- prediction
    @_locked
    def seconds(self) -> float | None:
        """The predicted seconds left; None while too little is known."""
        self._pass_time()
        of_kind = {kind: list(values) for kind, values in self._seen.items()}
        for key, trial in self._running.items():
            share, seconds = trial.seen
            if share > 0:
                known = of_kind.setdefault(self._kinds.get(key, ""), [0.0, 0.0, 0.0])
                for i, value in enumerate((share * self._work.get(key, 0.0), seconds, share)):
                    known[i] += value
        work, seen, _ = (sum(values) for values in zip((0.0, 0.0, 0.0), *of_kind.values(), strict=True))
        whole = work + sum(self._work.get(key, 0.0) for key in (*self._waiting, *self._running))
        if work <= 0 or seen < LEAST_SECONDS or work < LEAST_SHARE * (whole + self._later * self._later_work):
            return None
        beside = self._beside_seconds()

        def training(key: str) -> float:
            mine = self._work.get(key, 0.0)
            known_work, known_seconds, count = of_kind.get(self._kinds.get(key, ""), (0.0, 0.0, 0.0))
            prior = PRIOR_TRIALS * (known_work / count if count else mine)
            return mine * (known_seconds + prior * seen / work) / max(known_work + prior, 1e-12)

        left = [self._left_of(trial, training(key), beside) for key, trial in self._running.items()]
        left += [beside + training(key) for key in self._waiting]
        left += [beside + self._later_work * seen / work] * self._later
        free = [0.0] * self._places
        for length in left:  # each to the place that is free first
            heapq.heapreplace(free, free[0] + length)
        return max(free)

    def _left_of(self, trial: _Progress, training: float, beside: float) -> float:
        """The seconds left of a trial that runs. By its own reports, as far as it has come; else by what is known of
        its kind."""
        share, seconds = trial.seen
        if share > 0:
            training = seconds + (1 - share) * training
        if trial.first is None:
            return max(training, training + beside - trial.spent)
        return max(0.0, (1 - trial.last[0]) * training - (trial.spent - trial.last[1]))

    def _beside_seconds(self) -> float:
        return sorted(self._beside)[len(self._beside) // 2] if self._beside else START_SECONDS
