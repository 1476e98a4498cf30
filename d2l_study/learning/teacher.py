"""Training the teacher: attention MIL with the three regularizers, all replicates of a configuration in lockstep.

    fitted = fit_teacher(TeacherConfig(lambda_adv=1.0), replicates)

The replicates take turns, one interval (`eval_every` steps) each, unless `compute` asks for packed training; every
draw is addressed by replicate and step, so the result is that of training them one by one, and that of a run resumed
from a checkpoint.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from d2l_study.data.pool import Bags, Replicate
from d2l_study.learning import metrics
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.instance_metrics import instance_metrics
from d2l_study.learning.lockstep import Checkpoint, Report, train_in_lockstep
from d2l_study.learning.objective import PARTS, draw_batch, teacher_loss
from d2l_study.learning.prediction import Compute, Normalise, bag_metrics, predict_bags
from d2l_study.learning.thresholds import label_free_threshold
from d2l_study.learning.training import Fitted, Training, train_interval, trainable
from d2l_study.learning.undefined import warn_of_undefined
from d2l_study.models import MilModel, Params
from d2l_study.models.extractors import he_scaled


@dataclass(frozen=True, repr=False)
class FittedTeacher(Fitted):
    """A trained replicate, at its selected snapshot.

    metrics: `bag_*` and `instance_*` on test, `val_bag_*` on validation, and the instance metrics `*_tuned` at
    `instance_threshold`, which is set on validation bags without instance labels; logits: (split, level) -> the logits
    of that split's bags or instances, in order; status: `done`, or `failed` with its cause (then no metrics).
    """


def evaluation_sets(replicate: Replicate) -> dict[tuple[str, str], Bags]:
    """(split, level) -> the bags whose logits a fitted model's results hold, in this order."""
    return {
        ("val", "bag"): replicate.val,
        ("test", "bag"): replicate.test,
        ("test", "instance"): replicate.test_instances,
    }


def teacher_model(config: TeacherConfig, replicate: Replicate) -> MilModel:
    return MilModel(
        replicate.pool.shape, config.pooling, config.feature_width, config.attention_width, config.extractor
    )


def initial_params(config: TeacherConfig, model: MilModel, replicate: Replicate) -> Params:
    """Fresh parameters, as `config.initial_weights` wants them, from the same draws."""
    params = model.init(replicate.streams.rng("init"))
    return he_scaled(params) if config.initial_weights == "he" else params


def of_member(replicate: Replicate, member: int) -> Replicate:
    """The replicate as an ensemble's member draws it: the same bags, other initial weights, order and noise."""
    if member == 0:
        return replicate
    return dataclasses.replace(replicate, streams=replicate.streams.on(f"member{member}"))


def fit_teacher(
    config: TeacherConfig,
    replicates: Sequence[Replicate],
    *,
    compute: Compute | None = None,
    report: Report | None = None,
    checkpoint: Checkpoint | None = None,
    checkpoint_every: int = 0,
    resume: Mapping[int, bytes] | None = None,
) -> list[FittedTeacher]:
    """Train every replicate and evaluate its selected snapshot.

    A replicate whose loss is no longer finite stops with status `failed`; the others go on. `checkpoint` is
    called at the first interval's end after every `checkpoint_every` steps (0: never).
    """
    compute = compute or Compute()
    if compute.packs:
        from d2l_study.learning.packed.training import fit_pack

        return fit_pack(
            [(config, replicate) for replicate in replicates], [replicate.number for replicate in replicates],
            compute, report, checkpoint, checkpoint_every, resume,
        )  # fmt: skip
    replicates = [of_member(replicate, config.member) for replicate in replicates]
    model = teacher_model(config, replicates[0])
    normalise = [Normalise.of(replicate, compute) for replicate in replicates]
    trainings = [_start(config, model, replicate, compute) for replicate in replicates]
    for replicate, training in zip(replicates, trainings, strict=True):
        if resume and replicate.number in resume:
            training.load_bytes(resume[replicate.number])
    train_in_lockstep(
        [replicate.number for replicate in replicates],
        trainings,
        lambda i: _interval(config, model, replicates[i], trainings[i], normalise[i], compute),
        report,
        checkpoint,
        checkpoint_every,
    )
    return [
        _evaluate(model, replicate, training, norm, compute)
        for replicate, training, norm in zip(replicates, trainings, normalise, strict=True)
    ]


def _start(config: TeacherConfig, model: MilModel, replicate: Replicate, compute: Compute) -> Training:
    return Training(*trainable(config, initial_params(config, model, replicate), compute))


def _interval(
    config: TeacherConfig,
    model: MilModel,
    replicate: Replicate,
    training: Training,
    normalise: Normalise,
    compute: Compute,
) -> None:
    """One interval of a replicate, up to its validation."""

    def loss_of(step: int) -> tuple[Tensor, Tensor]:
        batch = draw_batch(config, replicate.pool, replicate.train, replicate.streams, step, normalise)
        ramp = min(1.0, (step + 1) / config.ramp_steps) if config.ramp_steps else 1.0
        return teacher_loss(model, training.params, batch, config, ramp, compute)

    def validate(params: Params) -> dict[str, float] | None:
        (logit,) = predict_bags(model, params, replicate.pool, [replicate.val], normalise, compute)
        return validation(replicate, logit)

    if train_interval(config, training, PARTS, loss_of, validate, "val_bag_nll"):
        training.status = "done"


def validation(replicate: Replicate, logit: np.ndarray) -> dict[str, float] | None:
    """The figures of the validation bags' logits, (bags,); None if one is not finite."""
    if not np.isfinite(logit).all():
        return None
    label = replicate.val.label
    return {"val_bag_auc": metrics.auc(label, logit), "val_bag_nll": metrics.log_loss(label, logit)}


def evaluation_bags(replicate: Replicate) -> list[Bags]:
    """What the selected snapshot predicts: `evaluation_sets`, and the validation instances as bags of one, on which
    the threshold is set."""
    val_instances = Bags.of_one(replicate.val.instance, replicate.val.instance_label)
    return [*evaluation_sets(replicate).values(), val_instances]


def _evaluate(
    model: MilModel, replicate: Replicate, training: Training, normalise: Normalise, compute: Compute
) -> FittedTeacher:
    begin = time.perf_counter()
    found: list[np.ndarray] = []
    if training.status == "done":
        sets = evaluation_bags(replicate)
        found = predict_bags(model, training.best_params, replicate.pool, sets, normalise, compute)
    return fitted(replicate, training, found, begin)


def fitted(replicate: Replicate, training: Training, predicted: Sequence[np.ndarray], begin: float) -> FittedTeacher:
    """The result of a training that is over. predicted: the logits of its `evaluation_bags`, none if it failed;
    begin: when (`time.perf_counter`) their prediction began."""
    found: dict[str, Any] = {}
    logits: dict[tuple[str, str], np.ndarray] = {}
    if training.status == "done":
        *found_logits, val_logit = predicted
        sets = evaluation_sets(replicate)
        if all(np.isfinite(logit).all() for logit in found_logits):
            for ((split, level), bags), logit in zip(sets.items(), found_logits, strict=True):
                logits[split, level] = logit
                if level == "bag":
                    found |= bag_metrics(bags.label, logit, "val_bag" if split == "val" else "bag")
            threshold = label_free_threshold(val_logit, replicate.val)
            found |= instance_metrics(replicate, logits["test", "instance"], threshold)
            warn_of_undefined(replicate)
        else:
            training.status = "failed"
            training.cause = f"the logits of the snapshot of step {training.best_step} are not finite"
    return FittedTeacher(
        replicate.number, training.status, training.cause, training.best_params, training.best_step,
        training.step, training.seconds, time.perf_counter() - begin, training.curve, found, logits,
    )  # fmt: skip
