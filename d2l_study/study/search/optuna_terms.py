"""Optuna's words for distributions, goals and the states of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from d2l_study.study.search.trial import COMPLETE, FAILED, OPEN, PRUNED
from d2l_study.study.space.distributions import Distribution

STATES = {OPEN: "RUNNING", COMPLETE: "COMPLETE", FAILED: "FAIL", PRUNED: "PRUNED"}
"""The state of a trial -> the name of Optuna's `TrialState`."""


def directions_of(goals: Sequence[str]) -> list[Any]:
    """The directions of goals `max` and `min`."""
    return ["maximize" if goal == "max" else "minimize" for goal in goals]


def optuna_distributions(distributions: Mapping[str, Distribution]) -> dict[str, Any]:
    """Key -> distribution, as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for key, d in distributions.items():
        if d.choices:
            found[key] = CategoricalDistribution(d.choices)
        elif d.whole:
            found[key] = IntDistribution(int(d.low), int(d.high), log=d.log)
        else:
            found[key] = FloatDistribution(d.low, d.high, log=d.log)
    return found
