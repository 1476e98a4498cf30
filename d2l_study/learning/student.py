"""Training the student: an instance classifier that learns from bag teachers, all replicates in lockstep.

    targets = {r.number: [teacher_targets(model, fitted.params, r)] for r, fitted in zip(replicates, teachers)}
    students = fit_student(StudentConfig(temperature=2.0, alpha=1.0), replicates, targets)

Every draw is addressed by replicate, generation and step, so packed training, one by one and resumed agree. Instance
labels are read nowhere but in the metrics of the test instances.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from d2l_study.data.pool import Bags, Replicate
from d2l_study.data.streams import Streams
from d2l_study.errors import UserError
from d2l_study.learning import metrics
from d2l_study.learning.distillation import (
    STUDENT_PARTS,
    TeacherTargets,
    check_teachers,
    distillation_divergence,
    draw_student_batch,
    lesson_targets,
    student_loss,
    teacher_targets,
)
from d2l_study.learning.instance_metrics import instance_metrics
from d2l_study.learning.lockstep import Checkpoint, Report, train_in_lockstep
from d2l_study.learning.prediction import Compute, Normalise, bag_metrics, predict_bags
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.teacher import evaluation_sets
from d2l_study.learning.thresholds import label_free_threshold
from d2l_study.learning.training import Fitted, Training, train_interval, trainable
from d2l_study.learning.undefined import warn_of_undefined
from d2l_study.models import MilModel, Params

Metrics = dict[str, float]
Logits = dict[tuple[str, str], np.ndarray]


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


@dataclass
class StudentTraining(Training):
    """The state of one replicate: the generation in training, what it learns from, and the finished ones.

    target, val_target: (instances,) soft labels of the training and validation instances; finished_params and
    finished_steps: the selected snapshot of each earlier generation and its step; before: steps of those generations.
    """

    generation: int = 1
    target: Tensor = field(default_factory=lambda: torch.empty(0))
    val_target: Tensor = field(default_factory=lambda: torch.empty(0))
    before: int = 0
    finished_params: list[Params] = field(default_factory=list)
    finished_steps: list[int] = field(default_factory=list)

    @property
    def position(self) -> int:
        return self.before + self.step


@dataclass(frozen=True)
class Lesson:
    """What a replicate's first generation learns from: soft labels of the training and the validation instances,
    (instances,) each in [0, 1], and the weights it starts from (None: new ones)."""

    train: np.ndarray
    val: np.ndarray
    start: Params | None = None


def student_model(config: StudentConfig, replicate: Replicate) -> MilModel:
    """The instance classifier, with its scores pooled into bags as `consistency` says."""
    pooling = {"max": "instance_max", "noisy_or": "noisy_or"}[config.consistency]
    return MilModel(replicate.pool.shape, pooling, config.feature_width, extractor=config.network)


def fit_student(
    config: StudentConfig,
    replicates: Sequence[Replicate],
    teachers: Mapping[int, Sequence[TeacherTargets]],
    *,
    compute: Compute | None = None,
    report: Report | None = None,
    checkpoint: Checkpoint | None = None,
    checkpoint_every: int = 0,
    resume: Mapping[int, bytes] | None = None,
) -> list[FittedStudent]:
    """Train every replicate's student from its own teachers, generation after generation, and evaluate it.

    teachers: replicate number -> the members of its ensemble, `config.teachers` of them. `UserError` if they are
    missing, or of another data set, base seed, replicate, fold or other bags. The rest as in `fit_teacher`.
    """
    lessons = []
    for replicate in replicates:
        members = teachers.get(replicate.number, ())
        check_teachers(config, replicate, members)
        start = members[0].params if config.start == "teacher" else None
        lessons.append(Lesson(*lesson_targets(config, replicate, members), start))
    return fit_lessons(
        config, replicates, lessons, compute=compute, report=report,
        checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume,
    )  # fmt: skip


def fit_lessons(
    config: StudentConfig,
    replicates: Sequence[Replicate],
    lessons: Sequence[Lesson],
    *,
    stage: str = "student",
    oracle: bool = False,
    compute: Compute | None = None,
    report: Report | None = None,
    checkpoint: Checkpoint | None = None,
    checkpoint_every: int = 0,
    resume: Mapping[int, bytes] | None = None,
    evaluated: Sequence[Replicate] | None = None,
) -> list[FittedStudent]:
    """`fit_student` from given soft labels, whatever their source.

    evaluated: the replicates on which the results are measured, where those to learn from are parts of them.
    """
    compute = compute or Compute()
    model = student_model(config, replicates[0])
    normalise = [Normalise.of(replicate, compute) for replicate in replicates]
    trainings = []
    for replicate, lesson in zip(replicates, lessons, strict=True):
        training = _start(config, model, replicate, lesson, compute)
        if resume and replicate.number in resume:
            training.load_bytes(resume[replicate.number])
        trainings.append(training)
    train_in_lockstep(
        [replicate.number for replicate in replicates],
        trainings,
        lambda i: _interval(config, model, replicates[i], trainings[i], normalise[i], compute),
        report,
        checkpoint,
        checkpoint_every,
    )
    return [
        _evaluate(config, model, replicate, training, norm, compute, stage, oracle)
        for replicate, training, norm in zip(evaluated or replicates, trainings, normalise, strict=True)
    ]


def _start(
    config: StudentConfig, model: MilModel, replicate: Replicate, lesson: Lesson, compute: Compute
) -> StudentTraining:
    sizes = (len(lesson.train), len(lesson.val))
    if sizes != (len(replicate.train.instance), len(replicate.val.instance)):
        raise UserError(f"replicate {replicate.number}: soft labels of {sizes} instances, not of its own")
    params, optimizer = trainable(config, _first_weights(model, replicate, 1, lesson.start), compute)
    target, val_target = (torch.from_numpy(np.asarray(q, np.float32)) for q in (lesson.train, lesson.val))
    return StudentTraining(params, optimizer, target=target, val_target=val_target)


def _first_weights(model: MilModel, replicate: Replicate, generation: int, start: Params | None) -> Params:
    """New weights, or those of `start` that an instance classifier has (an attention stays behind)."""
    fresh = model.init(_streams(replicate, generation).rng("student_init"))
    return fresh if start is None else {name: start[name] for name in fresh}


def _streams(replicate: Replicate, generation: int) -> Streams:
    return replicate.streams.on(f"generation{generation}")


def _interval(
    config: StudentConfig,
    model: MilModel,
    replicate: Replicate,
    training: StudentTraining,
    normalise: Normalise,
    compute: Compute,
) -> None:
    """One interval of a replicate, up to its validation; begins the next generation when this one is over."""
    streams, target = _streams(replicate, training.generation), training.target.cpu().numpy()
    generation = float(training.generation)

    def loss_of(step: int) -> tuple[Tensor, Tensor]:
        batch = draw_student_batch(config, replicate, streams, target, step, normalise)
        return student_loss(model, training.params, batch, config, compute)

    def validate(params: Params) -> Metrics | None:
        val_target = training.val_target.cpu().numpy()
        return _validate(config, model, params, replicate, val_target, normalise, compute)

    over = train_interval(config, training, STUDENT_PARTS, loss_of, validate, "val_distill_loss")
    training.curve[-1]["generation"] = generation
    if training.status == "failed":
        training.cause = f"{training.cause} (generation {training.generation})"
    if over:
        begin = time.perf_counter()
        _graduate(config, model, replicate, training, compute)
        training.seconds += time.perf_counter() - begin


def _validate(
    config: StudentConfig,
    model: MilModel,
    params: Params,
    replicate: Replicate,
    val_target: np.ndarray,
    normalise: Normalise,
    compute: Compute,
) -> Metrics | None:
    """The validation figures, none of which needs an instance label; None if a score is not finite."""
    instances, bags = predict_bags(
        model, params, replicate.pool, [_unlabelled(replicate.val), replicate.val], normalise, compute
    )
    if not (np.isfinite(instances).all() and np.isfinite(bags).all()):
        return None
    return {
        "val_bag_auc": metrics.auc(replicate.val.label, bags),
        "val_bag_nll": metrics.log_loss(replicate.val.label, bags),
        "val_distill_loss": distillation_divergence(val_target, instances, config.temperature),
    }


def _unlabelled(bags: Bags) -> Bags:
    """The instances of the bags, each a bag of one."""
    return Bags.of_one(bags.instance, np.full(len(bags.instance), -1, np.int8))


def _graduate(
    config: StudentConfig, model: MilModel, replicate: Replicate, training: StudentTraining, compute: Compute
) -> None:
    """The generation's selected snapshot teaches the next generation, or is the result."""
    if training.generation == config.generations:
        training.status = "done"
        return
    taught = teacher_targets(model, training.best_params, replicate, compute)
    target, val_target = lesson_targets(config, replicate, [taught])
    training.target, training.val_target = torch.from_numpy(target), torch.from_numpy(val_target)
    training.finished_params.append(training.best_params)
    training.finished_steps.append(training.best_step)
    training.before, training.step = training.position, 0
    training.generation += 1
    start = training.best_params if config.start == "teacher" else None
    values = _first_weights(model, replicate, training.generation, start)
    training.params, training.optimizer = trainable(config, values, compute)
    training.average = {}
    training.best_params, training.best_rank, training.since_best = {}, (math.inf, math.inf), 0


def _evaluate(
    config: StudentConfig,
    model: MilModel,
    replicate: Replicate,
    training: StudentTraining,
    normalise: Normalise,
    compute: Compute,
    stage: str,
    oracle: bool,
) -> FittedStudent:
    begin = time.perf_counter()
    generations: list[Generation] = []
    logits: Logits = {}
    if training.status == "done":
        snapshots = [*training.finished_params, training.best_params]
        steps = [*training.finished_steps, training.best_step]
        for i, (params, step) in enumerate(zip(snapshots, steps, strict=True), 1):
            found = evaluate_classifier(model, params, replicate, normalise, compute)
            if found is None:
                training.status = "failed"
                training.cause = f"the scores of the snapshot of step {step} are not finite"
                generations, logits = [], {}
                break
            scores, logits = found
            at_best = next(v for v in training.curve if v["generation"] == i and v["step"] == step)
            generations.append(Generation(i, step, scores | {"val_distill_loss": at_best["val_distill_loss"]}))
    return FittedStudent(
        replicate.number, training.status, training.cause, training.best_params, training.best_step,
        training.position, training.seconds, time.perf_counter() - begin, training.curve,
        generations[-1].metrics if generations else {}, logits, stage, oracle, generations,
    )  # fmt: skip


def evaluate_classifier(
    model: MilModel, params: Params, replicate: Replicate, normalise: Normalise, compute: Compute
) -> tuple[Metrics, Logits] | None:
    """`bag_*`, `val_bag_*`, `instance_*`, `instance_threshold` and `instance_*_tuned` of an instance classifier, with
    the logits they come from; None if a logit is not finite."""
    sets = evaluation_sets(replicate)
    *found, val_scores = predict_bags(
        model, params, replicate.pool, [*sets.values(), _unlabelled(replicate.val)], normalise, compute
    )
    if not all(np.isfinite(logit).all() for logit in found):
        return None
    scores: Metrics = {}
    for ((split, level), bags), logit in zip(sets.items(), found, strict=True):
        if level == "bag":
            scores |= bag_metrics(bags.label, logit, "val_bag" if split == "val" else "bag")
    logits = dict(zip(sets, found, strict=True))
    threshold = label_free_threshold(val_scores, replicate.val)
    scores |= instance_metrics(replicate, logits["test", "instance"], threshold)
    warn_of_undefined(replicate)
    return scores, logits
