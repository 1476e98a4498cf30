"""Points proposed by Optuna's samplers, as a function of what was asked and told.

No sampler state is stored: the draws of each proposal are seeded by base seed, search and number (architecture,
decision 6), and what a sampler has learned is rebuilt from the trials. So a search that goes on after a kill proposes
what it would have proposed, start-up draws never repeat, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2l_study.study.space.distributions import Distribution

LEAST_KNOWN = 2
"""Finished trials without which a sampler still draws at random, beyond the start-up."""


@dataclass
class Told:
    """What a sampler knows of a trial, in the order of `number`.

    state: asked, complete, failed or pruned; asked, told: when, counted in events of the search; partial: (step,
    value) of a pruned one.
    """

    number: int
    params: dict[str, Any]
    state: str
    values: list[float] | None
    asked: int
    told: int | None
    partial: tuple[int, float] | None = None


class Sampler:
    """Proposes the points of one search. distributions: "section.key" -> distribution."""

    def __init__(
        self, method: str, distributions: Mapping[str, Distribution], goals: Sequence[str], startup: int,
        base_seed: int, name: str,
    ) -> None:  # fmt: skip
        self.method, self.distributions, self.goals, self.startup = method, dict(distributions), goals, startup
        self.base_seed, self.name = base_seed, name
        self._replay: _Replay | None = None

    def propose(self, number: int, trials: Sequence[Told]) -> dict[str, Any]:
        """The point of that number, 0 …, given all trials before it."""
        if number < self.startup:  # the same draws in every arm, and as `method: random` has them
            return {key: d.draw(key, self.base_seed, number) for key, d in self.distributions.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Optuna: experimental arguments, independent sampling
            if self.method == "cmaes":
                self._replay = self._replay or _Replay(self)
                found = self._replay.propose(number, trials)
            else:
                study = self.study(self.sampler(number))
                for trial in trials:
                    study.add_trial(self.frozen(trial))
                found = study.ask(self.optuna_distributions()).params
        return self.rounded(found)

    def rounded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {key: d.rounded(params[key]) for key, d in self.distributions.items()}

    def seed(self, number: int) -> int:
        text = f"sampler|{self.base_seed}|{self.name}|{self.method}|{number}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1

    def sampler(self, number: int) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = self.seed(number)
        few: dict[str, Any] = {"n_startup_trials": LEAST_KNOWN}
        if self.method == "tpe":  # multivariate, and with constant liar: trials at work count as bad ones
            return optuna.samplers.TPESampler(seed=seed, **few)
        if self.method == "gp":
            return optuna.samplers.GPSampler(seed=seed, **few)
        return optuna.samplers.CmaEsSampler(seed=seed, **few)

    def study(self, sampler: Any) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directions: list[Any] = ["maximize" if goal == "max" else "minimize" for goal in self.goals]
        return optuna.create_study(directions=directions, sampler=sampler)

    def optuna_distributions(self) -> dict[str, Any]:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, Any] = {}
        for key, d in self.distributions.items():
            if d.choices:
                found[key] = CategoricalDistribution(d.choices)
            elif d.whole:
                found[key] = IntDistribution(int(d.low), int(d.high), log=d.log)
            else:
                found[key] = FloatDistribution(d.low, d.high, log=d.log)
        return found

    def frozen(self, trial: Told, running: bool = False) -> Any:
        """The trial as Optuna keeps it; running: as it was before it was told."""
        from optuna.trial import TrialState, create_trial

        states = {"asked": TrialState.RUNNING, "complete": TrialState.COMPLETE, "failed": TrialState.FAIL,
                  "pruned": TrialState.PRUNED}  # fmt: skip
        state = TrialState.RUNNING if running else states[trial.state]
        # A study may go on with narrower bounds only under another name, so every value lies within.
        return create_trial(
            state=state, params=dict(trial.params), distributions=self.optuna_distributions(),
            values=trial.values if state == TrialState.COMPLETE else None,
            intermediate_values=dict([trial.partial]) if trial.partial and state == TrialState.PRUNED else None,
        )  # fmt: skip


class _Replay:
    """CMA-ES keeps its mean and covariance with Optuna's trials, so asks and tells are carried out again in their
    order."""

    def __init__(self, owner: Sampler) -> None:
        self.owner = owner
        self._study = owner.study(owner.sampler(0))
        self._events = -1  # the last one carried out

    def propose(self, number: int, trials: Sequence[Told]) -> dict[str, Any]:
        events = [(t.asked, "ask", t) for t in trials]
        events += [(t.told, "tell", t) for t in trials if t.told is not None]
        for at, what, trial in sorted(events, key=lambda event: event[0]):
            if at <= self._events:
                continue
            self._events = at
            if what == "tell":
                self._tell(trial)
            elif trial.number < self.owner.startup:
                self._study.add_trial(self.owner.frozen(trial, running=True))
            elif len(self._study.trials) <= trial.number:
                self._ask(trial.number)
        return self._ask(number)

    def _ask(self, number: int) -> dict[str, Any]:
        self._study.sampler = self.owner.sampler(number)
        return self._study.ask(self.owner.optuna_distributions()).params

    def _tell(self, trial: Told) -> None:
        from optuna.trial import TrialState

        if trial.state == "complete":
            self._study.tell(trial.number, trial.values)
        else:
            self._study.tell(trial.number, state=TrialState.FAIL)
