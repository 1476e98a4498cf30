"""Training the teacher: attention MIL with the three regularizers, all replicates of a configuration in lockstep.

    fitted = fit_teacher(TeacherConfig(lambda_adv=1.0), replicates)

On a CPU the replicates take turns, one interval (`eval_every` steps) each; every draw is addressed by replicate
and step, so the result is that of training them one by one, and that of a run resumed from a checkpoint.
"""

from __future__ import annotations

import dataclasses
import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from d2l_study.data.pool import Bags, Replicate
from d2l_study.learning import metrics
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.lockstep import Checkpoint, Report, train_in_lockstep
from d2l_study.learning.objective import PARTS, draw_batch, teacher_loss
from d2l_study.learning.prediction import Compute, Normalise, bag_metrics, predict_bags
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.thresholds import label_free_threshold, tuned_metrics
from d2l_study.models import MilModel
from d2l_study.models.extractors import Params


@dataclass
class Training:
    """The state of one replicate in training: everything a resumed run needs, and no generator state."""

    params: Params
    optimizer: torch.optim.Adam
    step: int = 0
    best_params: Params = field(default_factory=dict)
    best_rank: tuple[float, float] = (math.inf, math.inf)
    best_step: int = 0
    since_best: int = 0
    status: str = "running"
    cause: str | None = None
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Optimizer steps done so far."""
        return self.step

    def to_bytes(self) -> bytes:
        out = io.BytesIO()
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "optimizer"}
        torch.save(plain | {"optimizer": self.optimizer.state_dict()}, out)
        return out.getvalue()

    def load_bytes(self, data: bytes) -> None:
        """Continue from `to_bytes`; nothing in the data is executed."""
        device = next(iter(self.params.values())).device  # perhaps not the one that saved it
        state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        with torch.no_grad():
            for name, value in self.params.items():
                value.copy_(state["params"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        for f in dataclasses.fields(self):
            if f.name not in ("params", "optimizer"):
                setattr(self, f.name, state[f.name])


@dataclass(frozen=True)
class FittedTeacher:
    """A trained replicate, at its selected snapshot.

    metrics: `bag_*` and `instance_*` on test, `val_bag_*` on validation, and the instance metrics `*_tuned` at
    `instance_threshold`, which is set on validation bags without instance labels; logits: (split, level) -> the logits
    of that split's bags or instances, in order; status: `done`, or `failed` with its cause (then no metrics).
    """

    replicate: int
    status: str
    cause: str | None
    params: Params
    best_step: int
    steps_run: int
    train_seconds: float
    eval_seconds: float
    curve: list[dict[str, float]]
    metrics: dict[str, float]
    logits: dict[tuple[str, str], np.ndarray]


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
    return Training(*trainable(config, model.init(replicate.streams.rng("init")), compute))


def trainable(
    config: TeacherConfig | StudentConfig, values: Params, compute: Compute
) -> tuple[Params, torch.optim.Adam]:
    """Copies of the values on the device, as leaves that require gradients, and their optimizer."""
    params = {}
    for name, value in values.items():
        layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
        params[name] = value.detach().clone().to(compute.device).contiguous(memory_format=layout).requires_grad_(True)
    optimizer = torch.optim.Adam(
        list(params.values()), lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.weight_decay, fused=True,
    )  # fmt: skip
    return params, optimizer


def learning_rate(config: TeacherConfig | StudentConfig, step: int) -> float:
    """The learning rate of a step (counted from 0): constant, or falling to 0 at the end."""
    done = step / config.steps
    factor = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[config.decay]
    return config.learning_rate * factor


def _interval(
    config: TeacherConfig,
    model: MilModel,
    replicate: Replicate,
    training: Training,
    normalise: Normalise,
    compute: Compute,
) -> None:
    """Steps up to the next validation, then the validation: appends to the curve, keeps the best snapshot."""
    begin = time.perf_counter()
    parts = torch.zeros(1 + len(PARTS), device=compute.device)
    first, last = training.step, min(training.step + config.eval_every, config.steps)
    params = training.params
    tensors = list(params.values())
    for step in range(first, last):
        batch = draw_batch(config, replicate.pool, replicate.train, replicate.streams, step, normalise)
        ramp = min(1.0, (step + 1) / config.ramp_steps) if config.ramp_steps else 1.0
        loss, terms = teacher_loss(model, params, batch, config, ramp, compute)
        for tensor, gradient in zip(tensors, torch.autograd.grad(loss, tensors), strict=True):
            tensor.grad = gradient
        training.optimizer.param_groups[0]["lr"] = learning_rate(config, step)
        training.optimizer.step()
        parts += torch.cat([loss.detach()[None], terms])
    training.step = last
    means = (parts / (last - first)).tolist()
    values = dict(zip(("train_loss", *PARTS), means, strict=True)) | {"step": float(last)}
    if not math.isfinite(means[0]):
        training.status = "failed"
        training.cause = f"the training loss became {means[0]} between steps {first + 1} and {last}"
    else:
        (logit,) = predict_bags(model, params, replicate.pool, [replicate.val], normalise, compute)
        if not np.isfinite(logit).all():  # the last step's update spoils parameters whose losses were all finite
            training.status = "failed"
            training.cause = f"the validation logits are no longer finite after step {last}"
        else:
            values["val_bag_auc"] = metrics.auc(replicate.val.label, logit)
            values["val_bag_nll"] = metrics.log_loss(replicate.val.label, logit)
            _select(config, training, values)
            if training.step >= config.steps or (config.patience and training.since_best >= config.patience):
                training.status = "done"
    training.curve.append(values)
    training.seconds += time.perf_counter() - begin


def _select(config: TeacherConfig, training: Training, values: Mapping[str, float]) -> None:
    loss, area = values["val_bag_nll"], values["val_bag_auc"]
    area = -math.inf if math.isnan(area) else area
    rank = {"loss": (loss, 0.0), "auc": (-area, loss), "last": (-values["step"], 0.0)}[config.select]
    if rank < training.best_rank:
        training.best_rank, training.best_step, training.since_best = rank, training.step, 0
        training.best_params = {name: value.detach().clone() for name, value in training.params.items()}
    else:
        training.since_best += 1


def _evaluate(
    model: MilModel, replicate: Replicate, training: Training, normalise: Normalise, compute: Compute
) -> FittedTeacher:
    begin = time.perf_counter()
    found: dict[str, Any] = {}
    logits: dict[tuple[str, str], np.ndarray] = {}
    if training.status == "done":
        params = training.best_params
        sets = evaluation_sets(replicate)
        val_instances = Bags.of_one(replicate.val.instance, replicate.val.instance_label)
        *found_logits, val_logit = predict_bags(
            model, params, replicate.pool, [*sets.values(), val_instances], normalise, compute
        )
        if all(np.isfinite(logit).all() for logit in found_logits):
            for ((split, level), bags), logit in zip(sets.items(), found_logits, strict=True):
                logits[split, level] = logit
                found |= bag_metrics(bags.label, logit, f"val_{level}" if split == "val" else level)
            threshold = label_free_threshold(val_logit, replicate.val)
            found |= tuned_metrics(replicate.test_instances.label, logits["test", "instance"], threshold)
        else:
            training.status = "failed"
            training.cause = f"the logits of the snapshot of step {training.best_step} are not finite"
    return FittedTeacher(
        replicate.number, training.status, training.cause, training.best_params, training.best_step,
        training.step, training.seconds, time.perf_counter() - begin, training.curve, found, logits,
    )  # fmt: skip
