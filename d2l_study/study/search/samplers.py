"""Optuna's samplers, which propose the points of a search from its earlier trials.

No state of a sampler is stored. The draws of each proposal are seeded by base seed, search and number, and what a
sampler has learned is rebuilt from the trials. So a search that was killed goes on with the points that it would have
proposed anyway, its draws never repeat, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2l_study.study.search.optuna_terms import STATES, directions_of, optuna_distributions
from d2l_study.study.space.distributions import Distribution

LEAST_KNOWN = 2
"""A sampler draws at random until so many trials have finished, also after the start-up."""


@dataclass
class ObservedTrial:
    """What a sampler knows of an earlier trial.

    params: "section.key" -> value; state: asked, complete, failed or pruned; values: of the metrics, None unless
    complete; asked_at, told_at: when it was asked for and when its first result was told, counted in events of the
    search; partial: (step, value) of a pruned one.
    """

    number: int
    params: dict[str, Any]
    state: str
    values: list[float] | None
    asked_at: int
    told_at: int | None
    partial: tuple[int, float] | None = None


class Sampler:
    """Proposes the points of one search.

    method: tpe, gp or cmaes; distributions: "section.key" -> distribution; goals: max or min, for each metric; startup:
    how many points are drawn at random first; base_seed, name: of the study and the search, for the seeds; enqueue: the
    start points, "section.key" -> value, with which the first of these points begin.

    A sampler learns from start points as it learns from random draws. CMA-ES begins in the middle of the bounds
    whatever was tried before it begins, as Optuna has it.
    """

    def __init__(
        self, method: str, distributions: Mapping[str, Distribution], goals: Sequence[str], startup: int,
        base_seed: int, name: str, enqueue: Sequence[Mapping[str, Any]] = (),
    ) -> None:  # fmt: skip
        self.method, self.distributions, self.goals = method, dict(distributions), goals
        self.base_seed, self.name, self.enqueue = base_seed, name, enqueue
        self.startup = max(startup, len(enqueue))
        self._replay: _Replay | None = None

    def propose(self, number: int, trials: Sequence[ObservedTrial]) -> dict[str, Any]:
        """The point number 0, 1, … of the search, "section.key" -> value. trials: all before it, in their order."""
        if number < self.startup:  # the same draws in every arm, and as `method: random` has them
            named = self.enqueue[number] if number < len(self.enqueue) else {}
            draws = {key: d.draw(key, self.base_seed, number) for key, d in self.distributions.items()}
            return {key: named.get(key, value) for key, value in draws.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Optuna: experimental arguments, independent sampling
            if self.method == "cmaes":
                self._replay = self._replay or _Replay(self)
                found = self._replay.propose(number, trials)
            else:
                study = self.study(self.sampler(number))
                for trial in trials:
                    study.add_trial(self.frozen(trial))
                found = study.ask(optuna_distributions(self.distributions)).params
        return self.rounded(found)

    def rounded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A point as it is trained and shown (`Distribution.rounded`)."""
        return {key: d.rounded(params[key]) for key, d in self.distributions.items()}

    def seed(self, number: int) -> int:
        """The seed of a proposal, from base seed, search, method and number."""
        text = f"sampler|{self.base_seed}|{self.name}|{self.method}|{number}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1

    def sampler(self, number: int) -> Any:
        """A new sampler of Optuna, seeded for a proposal."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = self.seed(number)
        few: dict[str, Any] = {"n_startup_trials": LEAST_KNOWN}
        if self.method == "tpe":  # by Optuna 5's defaults trials at work count as bad, and one goal is multivariate
            return optuna.samplers.TPESampler(seed=seed, **few)
        if self.method == "gp":
            return optuna.samplers.GPSampler(seed=seed, **few)
        return optuna.samplers.CmaEsSampler(seed=seed, **few)

    def study(self, sampler: Any) -> Any:
        """A new study of Optuna, in memory."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return optuna.create_study(directions=directions_of(self.goals), sampler=sampler)

    def frozen(self, trial: ObservedTrial, running: bool = False, attributes: Mapping[str, Any] | None = None) -> Any:
        """The trial as Optuna's `FrozenTrial`; running: as it was before its result was told; attributes: what a
        sampler of Optuna keeps with it."""
        from optuna.trial import TrialState, create_trial

        state = TrialState.RUNNING if running else TrialState[STATES[trial.state]]
        # A study may go on with narrower bounds only under another name, so every value lies within.
        return create_trial(
            state=state, params=dict(trial.params), distributions=optuna_distributions(self.distributions),
            values=trial.values if state == TrialState.COMPLETE else None,
            intermediate_values=dict([trial.partial]) if trial.partial and state == TrialState.PRUNED else None,
            system_attrs=dict(attributes or {}),
        )  # fmt: skip


@dataclass(frozen=True)
class _Event:
    """A trial was asked for, or its result was told. at: its number, counted in events of the search."""

    at: int
    trial: ObservedTrial
    told: bool

    @property
    def key(self) -> tuple[Any, ...]:
        """What this event changes in Optuna. Two that differ have told it different things."""
        what = (self.trial.state, tuple(self.trial.values or ())) if self.told else tuple(self.trial.params.items())
        return self.at, self.trial.number, self.told, what


class _Replay:
    """Asks and tells of earlier trials, which are repeated in their order: Optuna keeps the mean and covariance of
    CMA-ES with its trials.

    The order is that in which results were told first. A result that has changed since (more replicates, a run trained
    again) stands where the first one stood. From there on Optuna may propose other points than it did; what it is told
    then is the recorded point, as a member of the same generation.
    """

    def __init__(self, owner: Sampler) -> None:
        self.owner = owner
        self._begin()

    def _begin(self) -> None:
        self._study = self.owner.study(self.owner.sampler(0))
        self._numbers: dict[int, int] = {}  # of our trials -> Optuna's number, which is later for a replaced one
        self._done: list[tuple[Any, ...]] = []  # keys of the events that were carried out

    def propose(self, number: int, trials: Sequence[ObservedTrial]) -> dict[str, Any]:
        events = [_Event(t.asked_at, t, told=False) for t in trials]
        events += [_Event(t.told_at, t, told=True) for t in trials if t.told_at is not None and t.state != "asked"]
        events.sort(key=lambda event: event.at)
        keys = [event.key for event in events]
        if keys[: len(self._done)] != self._done:
            self._begin()  # a result was told again since
        for event in events[len(self._done) :]:
            self._carry_out(event)
        self._done = keys
        return self._ask(number)

    def _carry_out(self, event: _Event) -> None:
        trial = event.trial
        if event.told:
            self._tell(trial)
        elif trial.number < self.owner.startup:
            self._add(trial)
        else:
            if trial.number not in self._numbers:
                self._ask(trial.number)
            asked = self._study.trials[self._numbers[trial.number]]
            if self.owner.rounded(asked.params) != trial.params:
                self._fail(asked.number)
                self._add(trial, asked.system_attrs)

    def _ask(self, number: int) -> dict[str, Any]:
        self._study.sampler = self.owner.sampler(number)
        asked = self._study.ask(optuna_distributions(self.owner.distributions))
        self._numbers[number] = asked.number
        return asked.params

    def _add(self, trial: ObservedTrial, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a trial at work at its recorded point. attributes: in which Optuna keeps generation and optimizer."""
        self._numbers[trial.number] = len(self._study.trials)
        self._study.add_trial(self.owner.frozen(trial, running=True, attributes=attributes))

    def _tell(self, trial: ObservedTrial) -> None:
        if trial.state == "complete":
            self._study.tell(self._numbers[trial.number], trial.values)
        else:
            self._fail(self._numbers[trial.number])

    def _fail(self, number: int) -> None:
        from optuna.trial import TrialState

        self._study.tell(number, state=TrialState.FAIL)
