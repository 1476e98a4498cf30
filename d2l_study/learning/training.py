"""What the trainings of all networks share: the state of one replicate, and one interval of steps."""

from __future__ import annotations

import dataclasses
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from d2l_study.learning.adam import Adam
from d2l_study.learning.prediction import Compute
from d2l_study.learning.training_options import TrainingOptions
from d2l_study.models import Params


@dataclass
class Training:
    """The state of one replicate in training: everything a resumed run needs, and no generator state.

    average: the running mean of the parameters, where the configuration asks for one (`weight_average`), else empty.
    """

    params: Params
    optimizer: Adam
    step: int = 0
    best_params: Params = field(default_factory=dict)
    best_rank: tuple[float, float] = (math.inf, math.inf)
    best_step: int = 0
    since_best: int = 0
    status: str = "running"
    cause: str | None = None
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    average: Params = field(default_factory=dict)

    @property
    def snapshot(self) -> Params:
        """The parameters that are validated, and kept if they are the best."""
        return self.average or self.params

    @property
    def position(self) -> int:
        """Optimizer steps done so far."""
        return self.step

    def fail_snapshot(self, what: str, step: int | None = None) -> None:
        """Turn a training that is done into a failed one: the `what` of a selected snapshot are not finite. step: of
        the snapshot, `best_step` if not given."""
        step = self.best_step if step is None else step
        self.status, self.cause = "failed", f"the {what} of the snapshot of step {step} are not finite"

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
            if f.name not in ("params", "optimizer") and f.name in state:  # an older run has no `average`
                setattr(self, f.name, state[f.name])


def saved_curve(data: bytes) -> list[dict[str, float]]:
    """The curve up to the moment when a run was saved (`Training.to_bytes`): dicts with `step` and values by name.

    Raises what torch, pickle and zipfile raise if the data cannot be read, `KeyError` if they hold no curve."""
    return list(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)["curve"])


def parameters_and_optimizer(config: TrainingOptions, values: Params, compute: Compute) -> tuple[Params, Adam]:
    """Copies of the values on the device, as leaves that require gradients, and their optimizer."""
    params = {}
    for name, value in values.items():
        layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
        params[name] = value.detach().clone().to(compute.device).contiguous(memory_format=layout).requires_grad_(True)
    optimizer = Adam(
        list(params.values()), lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.weight_decay, fused=True,
    )  # fmt: skip
    return params, optimizer


def learning_rate(config: TrainingOptions, step: int) -> float:
    """The learning rate of a step (counted from 0): constant, or falling to 0 at the end, after a warm-up."""
    done = step / config.steps
    factor = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[config.decay]
    if step < config.warmup_steps:
        factor *= (step + 1) / config.warmup_steps
    return config.learning_rate * factor


def average_share(config: TrainingOptions, step: int) -> float:
    """What the parameters after a step (counted from 0) count in their running mean, which before counts the rest.

    The mean is the plain one until it spans 1 / (1 − `weight_average`) steps, then an exponential one, so that the
    initial parameters are never in it.
    """
    return max(1.0 - config.weight_average, 1.0 / (step + 1))


def optimizer_step(loss: Tensor, tensors: Sequence[Tensor], optimizer: Adam) -> None:
    """One step of the optimizer along the loss's gradient."""
    for tensor, gradient in zip(tensors, torch.autograd.grad(loss, tensors), strict=True):
        tensor.grad = gradient
    optimizer.step()


@torch.no_grad()
def update_average(config: TrainingOptions, training: Training, step: int) -> None:
    """Count the parameters after a step in, where the configuration asks for it."""
    if config.weight_average == 0:
        return
    if not training.average:
        training.average = {name: value.detach().clone() for name, value in training.params.items()}
    found = [value.detach() for value in training.params.values()]
    torch._foreach_lerp_(list(training.average.values()), found, average_share(config, step))


def train_interval(
    config: TrainingOptions,
    training: Training,
    part_names: tuple[str, ...],
    loss_of: Callable[[int], tuple[Tensor, Tensor]],
    validate: Callable[[Params], Mapping[str, float] | None],
    selection_loss: str,
) -> bool:
    """Steps up to the next validation, then the validation: appends to the curve, keeps the best snapshot.

    loss_of: step -> the loss and its parts, (len(part_names),) detached; validate: parameters -> the validation's
    values, None if a logit is not finite; selection_loss: which of them `select: loss` looks at.

    Returns whether the training is over; a loss or a logit that is not finite makes it `failed`, with its cause.
    """
    begin = time.perf_counter()
    tensors = list(training.params.values())
    first, last = training.step, min(training.step + config.eval_every, config.steps)
    sums = torch.zeros(1 + len(part_names), device=tensors[0].device)
    for step in range(first, last):
        loss, parts = loss_of(step)
        training.optimizer.param_groups[0]["lr"] = learning_rate(config, step)
        optimizer_step(loss, tensors, training.optimizer)
        update_average(config, training, step)
        sums += torch.cat([loss.detach()[None], parts])
    means = (sums / (last - first)).tolist()
    over = close_interval(config, training, last, dict(zip(("train_loss", *part_names), means, strict=True)),
                          lambda: validate(training.snapshot), selection_loss)  # fmt: skip
    training.seconds += time.perf_counter() - begin
    return over


def close_interval(
    config: TrainingOptions,
    training: Training,
    last: int,
    means: Mapping[str, float],
    validate: Callable[[], Mapping[str, float] | None],
    selection_loss: str,
) -> bool:
    """Settle an interval whose steps, up to `last`, are done; see `train_interval`. means: of `train_loss` and the
    parts over its steps."""
    first, training.step = training.step, last
    values = {**means, "step": float(training.position)}
    over = False
    if not math.isfinite(means["train_loss"]):
        span = f"between steps {training.position - (last - first) + 1} and {training.position}"
        training.status, training.cause = "failed", f"the training loss became {means['train_loss']} {span}"
    elif (found := validate()) is None:  # the last update spoilt parameters whose losses were all finite
        cause = f"the validation logits are no longer finite after step {training.position}"
        training.status, training.cause = "failed", cause
    else:
        values |= found
        _keep_best(config.select, training, found, selection_loss)
        over = last >= config.steps or bool(config.patience and training.since_best >= config.patience)
    training.curve.append(values)
    return over


def _keep_best(select: str, training: Training, found: Mapping[str, float], selection_loss: str) -> None:
    """Keep the snapshot if it is the best so far. Few validation bags make ties of the AUC common: of these the one of
    the lower bag loss is kept, and of equals the earlier one."""
    area = -math.inf if math.isnan(found["val_bag_auc"]) else found["val_bag_auc"]
    rank = {
        "loss": (found[selection_loss], 0.0),
        "auc": (-area, found["val_bag_nll"]),
        "last": (-float(training.position), 0.0),
    }[select]
    if rank < training.best_rank:
        training.best_rank, training.best_step, training.since_best = rank, training.position, 0
        training.best_params = {name: value.detach().clone() for name, value in training.snapshot.items()}
    else:
        training.since_best += 1
