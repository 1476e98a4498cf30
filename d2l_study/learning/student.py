"""Training the student: an instance classifier that learns from bag teachers, all replicates in lockstep.

    targets = {r.number: [teacher_targets(model, fitted.params, r)] for r, fitted in zip(replicates, teachers)}
    students = fit_student(StudentConfig(temperature=2.0, alpha=1.0), replicates, targets)

Every draw is addressed by replicate, generation and step, so that training all replicates together, one by one and
resumed gives the same. Instance labels are read nowhere but in the metrics of the test instances.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from d2l_study.data.pool import Replicate
from d2l_study.data.streams import Streams
from d2l_study.errors import UserError
from d2l_study.learning.distillation import (
    STUDENT_PARTS,
    TeacherTargets,
    check_teachers,
    distillation_divergence,
    draw_student_batch,
    student_loss,
    teacher_targets,
    training_soft_labels,
    unlabelled_soft_labels,
)
from d2l_study.learning.evaluation import (
    Logits,
    Metrics,
    bags_of_one,
    evaluation_bags,
    evaluation_metrics,
    validation_metrics,
)
from d2l_study.learning.fit_checks import check_fit
from d2l_study.learning.lockstep import Callbacks, ReplicateTrainer, fit_in_lockstep
from d2l_study.learning.prediction import Compute, Normalise, predict_bags
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.training import Training, parameters_and_optimizer, train_interval
from d2l_study.learning.training_result import FittedStudent, Generation
from d2l_study.learning.unlabelled_bags import unlabelled_replicate
from d2l_study.models import MilModel, Params

DISTILL_LOSS = "val_distill_loss"
"""The distillation loss of the validation instances less their soft labels' own entropy (`distillation_divergence`)."""


@dataclass
class StudentTraining(Training):
    """The state of one replicate: the generation in training, what it learns from, and the finished ones.

    target, val_target: (instances,) soft labels of the training and validation instances, empty where none is read
    (`lambda_distill: 0`), unlabelled_target likewise; finished_params and
    finished_steps: the selected snapshot of each earlier generation and its step; before: steps of those generations.
    """

    generation: int = 1
    target: Tensor = field(default_factory=lambda: torch.empty(0))
    val_target: Tensor = field(default_factory=lambda: torch.empty(0))
    unlabelled_target: Tensor = field(default_factory=lambda: torch.empty(0))
    before: int = 0
    finished_params: list[Params] = field(default_factory=list)
    finished_steps: list[int] = field(default_factory=list)

    @property
    def position(self) -> int:
        return self.before + self.step


@dataclass(frozen=True)
class SoftLabels:
    """What a replicate's first generation learns from: soft labels of the training and the validation instances,
    (instances,) each in [0, 1], None where none is read, the weights it starts from (None: new ones), and soft labels
    of the instances of unlabelled bags."""

    train: np.ndarray | None
    val: np.ndarray | None
    start: Params | None = None
    unlabelled: np.ndarray | None = None


def student_model(config: StudentConfig, replicate: Replicate) -> MilModel:
    """The instance classifier, with its scores pooled into bags as `consistency` says."""
    pooling = {"max": "instance_max", "noisy_or": "noisy_or"}[config.consistency]
    return MilModel(
        replicate.pool.shape, pooling, config.feature_width, extractor=config.network, layers=config.hidden_layers
    )


def fit_student(
    config: StudentConfig,
    replicates: Sequence[Replicate],
    teachers: Mapping[int, Sequence[TeacherTargets]],
    *,
    stage: str = "student",
    compute: Compute | None = None,
    **callbacks: Unpack[Callbacks],
) -> list[FittedStudent]:
    """Train every replicate's student from its own teachers, generation after generation, and evaluate it.

    teachers: replicate number -> the members of its ensemble, `config.teachers` of them; stage: of the results
    (`FittedStudent`). The other keywords as in `fit_teacher`. `UserError` if teachers are missing, of another data
    set, base seed, replicate, fold or other bags, or lack the weights that students start from, and where the
    configuration does not go with the instances or bags (`fit_checks`).
    """
    check_fit(config, replicates)
    soft_labels = []
    for replicate in replicates:
        members = teachers.get(replicate.number, ())
        check_teachers(config, replicate, members)
        start = members[0].params if config.start == "teacher" else None
        if config.lambda_distill > 0:
            train, val = training_soft_labels(config, replicate, members)
            further = unlabelled_soft_labels(config, replicate, members)
            soft_labels.append(SoftLabels(train, val, start, further))
        else:
            soft_labels.append(SoftLabels(None, None, start))
    return fit_to_soft_labels(config, replicates, soft_labels, stage=stage, compute=compute, **callbacks)


def fit_to_soft_labels(
    config: StudentConfig,
    replicates: Sequence[Replicate],
    soft_labels: Sequence[SoftLabels],
    *,
    stage: str = "student",
    oracle: bool = False,
    compute: Compute | None = None,
    evaluated: Sequence[Replicate] | None = None,
    **callbacks: Unpack[Callbacks],
) -> list[FittedStudent]:
    """`fit_student` from given soft labels, whatever their source.

    stage, oracle: of the results (`FittedStudent`); evaluated: the replicates on which the results are measured, where
    those to learn from are parts of them. `UserError` if there are not as many soft labels as instances, or no weights
    for a student that starts from its teacher's.
    """
    compute = compute or Compute()
    trainers = [
        StudentTrainer(config.in_steps(measured.epoch_bags), replicate, labels, compute, measured, stage, oracle)
        for replicate, labels, measured in zip(replicates, soft_labels, evaluated or replicates, strict=True)
    ]
    return fit_in_lockstep(trainers, callbacks)


class StudentTrainer(ReplicateTrainer[FittedStudent]):
    """One replicate's student in training, through all of its generations."""

    training: StudentTraining

    def __init__(
        self,
        config: StudentConfig,
        replicate: Replicate,
        labels: SoftLabels,
        compute: Compute,
        evaluated: Replicate,
        stage: str,
        oracle: bool,
    ) -> None:
        targets = [np.empty(0) if q is None else q for q in (labels.train, labels.val)]
        sizes = (len(targets[0]), len(targets[1]))
        own = (len(replicate.train.instance), len(replicate.val.instance)) if config.lambda_distill > 0 else (0, 0)
        if sizes != own:
            raise UserError(f"replicate {replicate.number}: soft labels of {sizes} instances, not of its own")
        if config.start == "teacher" and labels.start is None:
            raise UserError(f"start: teacher needs a teacher's weights; replicate {replicate.number} was given none")
        self.config, self.evaluated, self.stage, self.oracle = config, evaluated, stage, oracle
        self.model = student_model(config, replicate)
        values = _initial_params(self.model, replicate, 1, labels.start)
        params, optimizer = parameters_and_optimizer(config, values, compute)
        target, val_target = (torch.from_numpy(np.asarray(q, np.float32)) for q in targets)
        training = StudentTraining(params, optimizer, target=target, val_target=val_target)
        self.unlabelled: Replicate | None = None
        if labels.unlabelled is not None:
            self.unlabelled = unlabelled_replicate(replicate)
            training.unlabelled_target = torch.from_numpy(np.asarray(labels.unlabelled, np.float32))
        super().__init__(replicate, training, compute)

    def advance(self) -> None:
        """Train one interval up to its validation; begins the next generation where this one is over."""
        training, generation = self.training, self.training.generation
        over = train_interval(self.config, training, STUDENT_PARTS, self._loss, self._validate, self._selection_loss)
        training.curve[-1]["generation"] = float(generation)
        if training.status == "failed":
            training.cause = f"{training.cause} (generation {generation})"
        if over:
            begin = time.perf_counter()
            self._end_generation()
            training.seconds += time.perf_counter() - begin

    @property
    def _distils(self) -> bool:
        """Whether soft labels are read: by training, by selection and by what is reported of both."""
        return self.config.lambda_distill > 0

    @property
    def _selection_loss(self) -> str:
        return DISTILL_LOSS if self._distils else "val_bag_nll"

    def _loss(self, step: int) -> tuple[Tensor, Tensor]:
        training = self.training
        streams = _streams(self.replicate, training.generation)
        target = training.target.cpu().numpy() if self._distils else None
        batch = draw_student_batch(self.config, self.replicate, streams, target, step, self.normalise)
        if self.unlabelled is not None:
            others, target = self.unlabelled, training.unlabelled_target.cpu().numpy()
            streams = _streams(others, training.generation)
            further = draw_student_batch(self.config, others, streams, target, step, self.normalise)
            batch = dataclasses.replace(batch, unlabelled=further)
        return student_loss(self.model, training.params, batch, self.config, self.compute)

    def _validate(self, params: Params) -> Metrics | None:
        """The validation figures, none of which needs an instance label; None if a score is not finite."""
        val = self.replicate.val
        instances, bags = predict_bags(
            self.model, params, self.replicate.pool, [bags_of_one(val), val], self.normalise, self.compute
        )
        found = validation_metrics(self.replicate, bags)
        if found is None or not np.isfinite(instances).all():
            return None
        if not self._distils:
            return found
        val_target = self.training.val_target.cpu().numpy()
        return found | {DISTILL_LOSS: distillation_divergence(val_target, instances, self.config.temperature)}

    def _end_generation(self) -> None:
        """Let the generation's selected snapshot teach the next generation, or be the result."""
        config, training, replicate = self.config, self.training, self.replicate
        if training.generation == config.generations:
            training.status = "done"
            return
        if self._distils:
            reads = self.unlabelled is not None
            taught = teacher_targets(self.model, training.best_params, replicate, self.compute, reads)
            target, val_target = training_soft_labels(config, replicate, [taught])
            training.target, training.val_target = torch.from_numpy(target), torch.from_numpy(val_target)
            further = unlabelled_soft_labels(config, replicate, [taught]) if reads else None
            if further is not None:
                training.unlabelled_target = torch.from_numpy(further)
        training.finished_params.append(training.best_params)
        training.finished_steps.append(training.best_step)
        training.before, training.step = training.position, 0
        training.generation += 1
        start = training.best_params if config.start == "teacher" else None
        values = _initial_params(self.model, replicate, training.generation, start)
        training.params, training.optimizer = parameters_and_optimizer(config, values, self.compute)
        training.average = {}
        training.best_params, training.best_rank, training.since_best = {}, (math.inf, math.inf), 0

    def evaluate(self) -> FittedStudent:
        begin, training = time.perf_counter(), self.training
        generations: list[Generation] = []
        logits: Logits = {}
        if training.status == "done":
            snapshots = [*training.finished_params, training.best_params]
            steps = [*training.finished_steps, training.best_step]
            for i, (params, step) in enumerate(zip(snapshots, steps, strict=True), 1):
                found = evaluate_classifier(self.model, params, self.evaluated, self.normalise, self.compute)
                if found is None:
                    training.fail_snapshot("scores", step)
                    generations, logits = [], {}
                    break
                scores, logits = found
                at_best = next(v for v in training.curve if v["generation"] == i and v["step"] == step)
                loss = {DISTILL_LOSS: at_best[DISTILL_LOSS]} if self._distils else {}
                generations.append(Generation(i, step, scores | loss))
        return FittedStudent.of(
            self.evaluated, training, generations[-1].metrics if generations else {}, logits, begin,
            stage=self.stage, oracle=self.oracle, generations=generations,
        )  # fmt: skip


def _initial_params(model: MilModel, replicate: Replicate, generation: int, start: Params | None) -> Params:
    """New weights, or those of `start` that an instance classifier has (an attention stays behind)."""
    fresh = model.init(_streams(replicate, generation).rng("student_init"))
    return fresh if start is None else {name: start[name] for name in fresh}


def _streams(replicate: Replicate, generation: int) -> Streams:
    return replicate.streams.on(f"generation{generation}")


def evaluate_classifier(
    model: MilModel, params: Params, replicate: Replicate, normalise: Normalise, compute: Compute
) -> tuple[Metrics, Logits] | None:
    """The `evaluation_metrics` of an instance classifier, with its logits; None if a logit is not finite."""
    sets = evaluation_bags(replicate)
    return evaluation_metrics(replicate, predict_bags(model, params, replicate.pool, sets, normalise, compute))
