"""What a training leaves: the selected snapshot of each replicate, its course and what it scored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from d2l_study.data.pool import Replicate
from d2l_study.learning.evaluation import Logits, Metrics, evaluation_metrics
from d2l_study.learning.training import Training
from d2l_study.models import Params

SHOWN = ("bag_auc", "instance_auc", "val_bag_auc")
"""The metrics that a fitted model is shown with."""


@dataclass(frozen=True, repr=False)
class Fitted:
    """What every trained replicate has, at its selected snapshot; `FittedTeacher` and `FittedStudent` say the rest."""

    replicate: int
    status: str
    cause: str | None
    params: Params
    best_step: int
    steps_run: int
    train_seconds: float
    eval_seconds: float
    curve: list[dict[str, float]]
    metrics: Metrics
    logits: Logits

    @classmethod
    def of(
        cls, replicate: Replicate, training: Training, metrics: Metrics, logits: Logits, begin: float, **more: Any
    ) -> Self:
        """The result of a training that is over. begin: when (`time.perf_counter`) its evaluation began; more: the
        fields that a subclass adds."""
        return cls(
            replicate.number, training.status, training.cause, training.best_params, training.best_step,
            training.position, training.seconds, time.perf_counter() - begin, training.curve, metrics, logits, **more,
        )  # fmt: skip

    def __repr__(self) -> str:
        """One line: what there is of it, not its weights and logits."""
        said = self.status if self.cause is None else f"{self.status}: {self.cause}"
        shown = [f"{name} {self.metrics[name]:.3f}" for name in SHOWN if name in self.metrics]
        steps = f"step {self.best_step} of {self.steps_run}"
        stage = getattr(self, "stage", "")
        parts = filter(None, (f"replicate {self.replicate}", stage, said, steps, *shown, f"{self.train_seconds:.1f} s"))
        return f"{type(self).__name__}({', '.join(parts)})"


@dataclass(frozen=True, repr=False)
class FittedTeacher(Fitted):
    """A trained replicate, at its selected snapshot.

    metrics: `bag_*` and `instance_*` on test, `val_bag_*` on validation, and the instance metrics `*_tuned` at
    `instance_threshold`, which is set on validation bags without instance labels; logits: (split, level) -> the logits
    of that split's bags or instances, in order; status: `done`, or `failed` with its cause (then no metrics).
    """


@dataclass(frozen=True)
class Generation:
    """One generation's selected snapshot and what it scored; the last one is the student."""

    generation: int
    best_step: int
    metrics: Metrics


@dataclass(frozen=True, repr=False)
class FittedStudent(Fitted):
    """A trained replicate of the last generation, at its selected snapshot.

    stage: `student`, or the name of a reference row; oracle: whether it learned from true instance labels. metrics,
    logits, status and cause as of a `FittedTeacher`, with `val_distill_loss`; bag logits are pooled instance scores.
    best_step and steps_run count from the first generation's start; generations: all of them, in order.
    """

    stage: str = "student"
    oracle: bool = False
    generations: list[Generation] = field(default_factory=list)


def fitted_teacher(
    replicate: Replicate, training: Training, predicted: Sequence[np.ndarray], begin: float
) -> FittedTeacher:
    """The result of a teacher's training that is over. predicted: the logits of its `evaluation_bags`, none if it
    failed; begin: when (`time.perf_counter`) their prediction began."""
    values: Metrics = {}
    logits: Logits = {}
    if training.status == "done":
        found = evaluation_metrics(replicate, predicted)
        if found is None:
            training.fail_snapshot("logits")
        else:
            values, logits = found
    return FittedTeacher.of(replicate, training, values, logits, begin)
