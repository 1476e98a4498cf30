"""The pruner: which trials are stopped early, by asynchronous successive halving or by the median of the others.

`asha` (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning"): a trial that reaches a rung (1/9 and
1/3 of its steps) goes on if it is among the best third of those that have reached it.
`median` (Golovin et al. 2017, "Google Vizier", section 3.2.2): a trial is ended if its best value so far is below the
median of the others' running averages up to the same point; not before a third of its steps.

Both rules take the mean over replicates of the validation AUC, compare trials of one group only (one arm at one point
of the data), and stop no trial before three others have got as far. They depend on the curves alone, so that a study
that goes on reads these from the ledger and decides as before."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from d2l_study.study.space.schedules import RULES, RUNGS, WARM_UP

FACTOR = 3
"""Of so many trials that reach a rung, `asha` lets the best one go on."""

LEAST_OTHERS = 3
METRIC = "val_bag_auc"


@dataclass
class Curve:
    """The validation AUC of one configuration.

    group: it is compared within; steps: optimizer steps of a whole run; points: replicate -> step -> value; done:
    replicates whose training has ended.
    """

    group: str
    steps: int
    points: dict[int, dict[int, float]] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)

    def best(self, share: float) -> float | None:
        """The mean over replicates of the best value up to a share of the steps; None if a replicate has no value
        yet."""
        values = []
        for points in self.points.values():
            there = [value for step, value in points.items() if step <= share * self.steps + 1e-9]
            if not there:
                return None
            values.append(max(there))
        return sum(values) / len(values) if values else None

    def average(self, share: float) -> float | None:
        """The mean over replicates of the average of the values up to a share of the steps; None as for `best`."""
        values = []
        for points in self.points.values():
            there = [value for step, value in points.items() if step <= share * self.steps + 1e-9]
            if not there:
                return None
            values.append(sum(there) / len(there))
        return sum(values) / len(values) if values else None

    @property
    def reached(self) -> float:
        """The share of the steps that every replicate has done. One whose training has ended has done all."""
        last = (self.steps if r in self.done else max(points, default=0) for r, points in self.points.items())
        return min(last, default=0) / self.steps


class Pruner:
    """Knows the curves of all trials, and decides which to stop. rule: asha or median."""

    def __init__(self, rule: str) -> None:
        if rule not in RULES:
            raise ValueError(f"unknown rule {rule!r}")
        self.rule = rule
        self._curves: dict[str, Curve] = {}
        self._rungs: dict[str, int] = {}  # config -> rungs that it has passed

    def add_trial(self, config: str, group: str, steps: int) -> None:
        """Add a trial. group: it is compared with the trials of the same group; steps: optimizer steps of each of its
        runs."""
        self._curves.setdefault(config, Curve(group, steps))

    def add_points(self, config: str, replicate: int, points: Sequence[Mapping[str, Any]], done: bool = False) -> None:
        """Add points to a run's curve (`step` and metrics). done: the run has ended."""
        known = self._curves[config].points.setdefault(replicate, {})
        if done:
            self._curves[config].done.add(replicate)
        for point in points:
            value = float(point.get(METRIC, math.nan))
            if math.isfinite(value):
                known[int(point["step"])] = value

    def pass_rungs(self, config: str, step: int) -> None:
        """Count the rungs up to a step as passed: a trial that goes on from there was judged at them before."""
        passed = _rungs_up_to(step / self._curves[config].steps)
        self._rungs[config] = max(passed, self._rungs.get(config, 0))

    def curve(self, config: str) -> Curve:
        """The curve of a trial that was added."""
        return self._curves[config]

    def reason_to_stop(
        self, config: str, replicates: Sequence[int], step: int, values: Mapping[int, Mapping[str, float]]
    ) -> str | None:
        """Why a trial is to be stopped after a report of its replicates, or None. values: replicate -> metric ->
        value."""
        curve = self._curves.get(config)
        if curve is None:
            return None
        for replicate, found in values.items():
            self.add_points(config, replicate, [{"step": int(found.get("step", step)), **found}])
        share = step / curve.steps
        if share >= 1 or any(not curve.points.get(r) for r in replicates):
            return None
        return self._halving(config, curve, share) if self.rule == "asha" else self._median(config, curve, share)

    def _others(self, config: str, curve: Curve, share: float) -> list[Curve]:
        """The other curves of the group that have got as far."""
        group = [c for name, c in self._curves.items() if name != config and c.group == curve.group]
        return [c for c in group if c.points and c.reached >= share - 1e-9]

    def _halving(self, config: str, curve: Curve, share: float) -> str | None:
        passed = _rungs_up_to(share)
        if passed <= self._rungs.get(config, 0):
            return None
        self._rungs[config] = passed
        mine = curve.best(share)
        found = [best for c in self._others(config, curve, share) if (best := c.best(share)) is not None]
        if mine is None or len(found) < LEAST_OTHERS:
            return None
        better = sum(value > mine for value in found)
        keep = math.ceil((len(found) + 1) / FACTOR)
        if better < keep:
            return None
        return (
            f"validation AUC {mine:.3f} after {share:.0%} of the steps: {better} of {len(found)} others were better "
            f"there, the best {keep} of {len(found) + 1} go on"
        )

    def _median(self, config: str, curve: Curve, share: float) -> str | None:
        if share < WARM_UP - 1e-9:
            return None
        mine = curve.best(share)
        found = [a for c in self._others(config, curve, share) if (a := c.average(share)) is not None]
        if mine is None or len(found) < LEAST_OTHERS or mine >= (middle := statistics.median(found)):
            return None
        return (
            f"validation AUC {mine:.3f} after {share:.0%} of the steps, below {middle:.3f}, the median of "
            f"{len(found)} others"
        )


def _rungs_up_to(share: float) -> int:
    """How many rungs a trial has reached with this share of its steps."""
    return sum(share >= rung - 1e-9 for rung in RUNGS)
