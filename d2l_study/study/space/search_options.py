"""The `search` section of a space: how the points are chosen, and by which metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2l_study.errors import UserError
from d2l_study.options import Options, option

ADAPTIVE = ("tpe", "gp", "cmaes")
"""Methods that choose a point by the results of earlier points, so that their plan is not known beforehand."""

OBJECTIVES = {
    "val_bag_auc": "max", "val_bag_nll": "min", "val_bag_brier": "min", "val_distill_loss": "min",
    "train_seconds": "min", "instance_auc": "max",
}  # fmt: skip
"""Metric -> whether more or less of it is better. They are of the validation bags, or the training time;
`instance_auc` is of the true instance labels of the test set, and allowed with `oracle: true` only."""

ORACLE_OBJECTIVES = ("instance_auc",)
GOALS = ("max", "min")


@dataclass(frozen=True)
class SearchOptions(Options):
    """The `search` section of a space."""

    method: str = option(
        "random", "how points are chosen: every point of the axes, draws from the distributions, or a sampler",
        choices=("grid", "random", *ADAPTIVE), scientific=False,
    )  # fmt: skip
    trials: int = option(20, "points for each arm, at each point of its axes", least=1, most=10_000, scientific=False)
    startup: int = option(
        10, "points drawn at random before a sampler learns from them", least=1, most=10_000, scientific=False
    )
    metric: str = option(
        "val_bag_auc", "what is searched for, as a mean over replicates", choices=tuple(OBJECTIVES), scientific=False
    )
    goal: str | None = option(None, "max or min; null: what is better of the metric", choices=GOALS, scientific=False)
    objectives: tuple[str, ...] = option(
        (), "several metrics at once, whose Pareto front is shown", choices=tuple(OBJECTIVES), scientific=False
    )
    oracle: bool = option(False, "the search may look at true instance labels; tables mark it", scientific=False)
    enqueue: tuple[Mapping[str, Any], ...] = option(
        (), "start points, as in [{teacher.epsilon: 2, lambda_adv: 1}]: the first trials of every arm, in this order; "
        "keys that a point does not name are drawn, those that an arm does not search are left out there",
        scientific=False,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        better = OBJECTIVES[self.metric]
        if self.goal not in (None, better):
            raise UserError(f"goal: {self.goal!r} is not allowed with metric {self.metric}, of which "
                            f"{'more' if better == 'max' else 'less'} is better; expected {better}")  # fmt: skip
        if len(self.objectives) == 1:
            raise UserError(f"objectives: one alone; expected several, or metric: {self.objectives[0]}")
        for name in self.objectives:
            if self.objectives.count(name) > 1:
                raise UserError(f"objectives: {name!r} stands there twice")
        if self.objectives and self.method == "cmaes":
            raise UserError(f"objectives: cmaes looks at one metric, found {len(self.objectives)}; expected tpe or gp")
        for name in self.names:
            if name in ORACLE_OBJECTIVES and not self.oracle:
                key = "objectives" if self.objectives else "metric"
                raise UserError(f"{key}: {name!r} looks at true instance labels; allowed under oracle: true only, "
                                "and marked in every table")  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values. `enqueue` is there only if there are start points, as in earlier versions."""
        found = super().to_dict()
        del found["enqueue"]
        return found | self.enqueued

    @property
    def enqueued(self) -> dict[str, Any]:
        """The entry `enqueue` of a record; empty without start points."""
        return {"enqueue": [dict(point) for point in self.enqueue]} if self.enqueue else {}

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that the search optimises."""
        return self.objectives or (self.metric,)

    @property
    def goals(self) -> tuple[str, ...]:
        """`max` or `min`, for each metric."""
        return tuple(OBJECTIVES[name] for name in self.names)

    @property
    def adaptive(self) -> bool:
        """Whether a sampler chooses the points (`ADAPTIVE`)."""
        return self.method in ADAPTIVE

    @property
    def sees_labels(self) -> bool:
        """Whether the search looks at true instance labels."""
        return any(name in ORACLE_OBJECTIVES for name in self.names)
