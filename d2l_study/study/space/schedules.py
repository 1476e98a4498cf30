"""The rules of `schedule`: after which share of its steps a trial is judged for the first time, and again."""

from __future__ import annotations

import math

RULES = ("asha", "median")
"""Asynchronous successive halving, and the median of the other trials (see `study.search.pruning`)."""

RUNGS = (1 / 9, 1 / 3)
"""Shares of a trial's own steps at which `asha` judges it."""

WARM_UP = 1 / 3
"""Share of its steps before which `median` judges no trial."""


def earliest_stop(rule: str, steps: int, every: int) -> int | None:
    """The first optimizer step at which a rule can end a trial of `steps` steps, which is validated `every` so many;
    None if it is validated too seldom to be ended early."""
    shares = RUNGS if rule == "asha" else (WARM_UP,)
    for share in shares:
        # A rung before the first validation would be judged together with the next one.
        step = max(every, math.ceil(share * steps / every) * every)
        if step < steps and (share == shares[-1] or share * steps >= every):
            return step
    return None
