"""Teachers that are trained one by one in one process: the replicates take turns, a validation interval each.

`fit_teacher` chooses between this and packed training (`learning.packed`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from d2l_study.data.pool import Replicate
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.evaluation import Metrics, evaluation_bags, validation_metrics
from d2l_study.learning.lockstep import Callbacks, ReplicateTrainer, fit_in_lockstep
from d2l_study.learning.objective import PARTS, teacher_loss, weight_ramp
from d2l_study.learning.prediction import Compute, predict_bags
from d2l_study.learning.teacher_model import initial_params, member_replicate, teacher_model
from d2l_study.learning.training import Training, parameters_and_optimizer, train_interval
from d2l_study.learning.training_result import FittedTeacher, fitted_teacher
from d2l_study.learning.unlabelled_bags import draw_teacher_batch
from d2l_study.models import MilModel, Params


def fit_sequentially(
    config: TeacherConfig, replicates: Sequence[Replicate], compute: Compute, callbacks: Callbacks
) -> list[FittedTeacher]:
    """Train every replicate and evaluate its selected snapshot; see `fit_teacher`."""
    trainers = [
        TeacherTrainer(
            config.in_steps(r.epoch_bags), teacher_model(config, r), member_replicate(r, config.member), compute
        )
        for r in replicates
    ]
    return fit_in_lockstep(trainers, callbacks)


class TeacherTrainer(ReplicateTrainer[FittedTeacher]):
    """One replicate's teacher in training."""

    def __init__(self, config: TeacherConfig, model: MilModel, replicate: Replicate, compute: Compute) -> None:
        training = Training(*parameters_and_optimizer(config, initial_params(config, model, replicate), compute))
        super().__init__(replicate, training, compute)
        self.config, self.model = config, model

    def advance(self) -> None:
        if train_interval(self.config, self.training, PARTS, self._loss, self._validate, "val_bag_nll"):
            self.training.status = "done"

    def evaluate(self) -> FittedTeacher:
        begin = time.perf_counter()
        predicted: list[np.ndarray] = []
        if self.training.status == "done":
            sets, pool = evaluation_bags(self.replicate), self.replicate.pool
            predicted = predict_bags(self.model, self.training.best_params, pool, sets, self.normalise, self.compute)
        return fitted_teacher(self.replicate, self.training, predicted, begin)

    def _loss(self, step: int) -> tuple[Tensor, Tensor]:
        config, replicate = self.config, self.replicate
        batch = draw_teacher_batch(config, replicate, step, self.normalise)
        ramp = weight_ramp(config, step)
        return teacher_loss(self.model, self.training.params, batch, config, ramp, self.compute)

    def _validate(self, params: Params) -> Metrics | None:
        replicate = self.replicate
        (logit,) = predict_bags(self.model, params, replicate.pool, [replicate.val], self.normalise, self.compute)
        return validation_metrics(replicate, logit)
