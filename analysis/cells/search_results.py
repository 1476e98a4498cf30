"""What a search has found: of each arm its trials, the best of them by the validation metric, the trials that tie with
it, and for several objectives the Pareto front. Read from the document of the search, `search.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from d2l_study.study.search.arm_search import search_name
from d2l_study.study.search.trial import COMPLETE, FAILED, OPEN, PRUNED

Trial = Mapping[str, Any]
"""A trial as the document holds it (`d2l_study.study.search.search`)."""


def trials_by_search(
    document: Mapping[str, Any], arm_name: Callable[[str], str] = str
) -> list[tuple[str, list[dict[str, Any]]]]:
    """(name of the search, its trials in the order of asking), in the order of the definition. arm_name: an arm's name
    as it is to be printed."""
    return [
        (
            search_name(arm_name(search["arm"]), search["at"]),
            [trial for trial in document["trials"] if trial["search"] == number],
        )
        for number, search in enumerate(document["definition"]["searches"])
    ]


def complete_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Those that have values of the metrics, in order."""
    return [trial for trial in trials if trial["state"] == COMPLETE]


def best_trial(trials: Sequence[Trial], goals: Sequence[str]) -> Trial | None:
    """The complete trial with the best value of the first metric, the earliest of equal ones. goals: `max` or `min` of
    each metric."""
    sign = 1 if goals[0] == "max" else -1
    return max(complete_trials(trials), key=lambda t: (sign * t["values"][0], -t["number"]), default=None)


def tied_trials(trials: Sequence[Trial], goals: Sequence[str]) -> list[Trial]:
    """The complete trials whose value of the first metric is the best one, one of each configuration, the earliest
    first."""
    best = best_trial(trials, goals)
    if best is None:
        return []
    found: dict[str, Trial] = {}
    for trial in sorted(complete_trials(trials), key=lambda t: t["number"]):
        if abs(trial["values"][0] - best["values"][0]) <= 1e-9:
            found.setdefault(trial["config_id"], trial)
    return [*found.values()]


def pareto_front(trials: Sequence[Trial], goals: Sequence[str]) -> list[Trial]:
    """The complete trials that no other one beats in one metric without losing in another, the best of the first
    metric first."""
    signs = [1 if goal == "max" else -1 for goal in goals]
    points = [(tuple(s * v for s, v in zip(signs, t["values"], strict=True)), t) for t in complete_trials(trials)]
    front = [
        (point, trial)
        for point, trial in points
        if not any(other != point and all(o >= p for o, p in zip(other, point, strict=True)) for other, _ in points)
    ]
    return [trial for _, trial in sorted(front, key=lambda item: item[0], reverse=True)]


def count_text(trials: Sequence[Trial]) -> str:
    """How many of a search's trials ended in which way: `18 complete, 1 failed`."""
    states = [trial["state"] for trial in trials]
    names = {COMPLETE: "complete", PRUNED: "ended early", FAILED: "failed", OPEN: "not finished"}
    found = [f"{states.count(state)} {name}" for state, name in names.items() if states.count(state)]
    configs = [trial["config_id"] for trial in trials]
    again = len(configs) - len(set(configs))
    return ", ".join(found or ["none yet"]) + (f"; {again} asked for a point that was there" if again else "")
