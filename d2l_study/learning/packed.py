"""Packed training: all replicates of a configuration in one process, with parameters stacked along a replicate axis.

    fitted = fit_teacher(config, replicates, compute=Compute("cuda", pack=20))
    fitted = fit_teachers([(TeacherConfig(lambda_adv=v), replicate) for v in (0.5, 1.0) for replicate in replicates])

The draws, the formulas and the selection are those of training one by one, so that results agree within rounding, and
a run may go on packed or unpacked from the same checkpoint. One small network leaves a GPU idle; a pack of twenty fills
it. It has been tested on a CPU, where taking turns was faster in what was measured (`benchmarks/README.md`), and not
been run on a GPU yet; so it is asked for (`Compute.pack` on a GPU, `Compute.packed` anywhere) and no device's default.

Networks: all, the residual one by grouped convolutions. Regularizers, poolings, dropout, stochastic depth, mixup and
augmentation: all. Students are not packed: they are trained by turns on every device.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d2l_study.data.pool import Replicate
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.lockstep import Checkpoint, Report, train_in_lockstep
from d2l_study.learning.objective import PARTS
from d2l_study.learning.packed_batches import Block, Capacity, Problem, block_steps, draw_block
from d2l_study.learning.packed_model import StackedModel
from d2l_study.learning.packed_prediction import StackedSets, on_host
from d2l_study.learning.packed_stack import Stack, images_on, means_and_stds, optimizer_values
from d2l_study.learning.prediction import Compute
from d2l_study.learning.teacher import (
    FittedTeacher,
    evaluation_bags,
    fitted,
    initial_params,
    of_member,
    teacher_model,
    validation,
)
from d2l_study.learning.training import Training, close_interval, trainable

SCALARS = (
    "lambda_adv", "lambda_noise", "lambda_ent", "ramp_steps", "epsilon", "xi", "noise_rate", "drop_rate",
    "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "decay", "warmup_steps", "patience", "select",
    "member",
)  # fmt: skip
"""The keys in which configurations of one pack may differ, as long as the same of the three weights are positive."""

REPACK_BELOW = 0.5
"""A captured stack whose share of replicates in training falls below this is made anew with those alone; until then the
places of those that have ended are computed in vain. A step of half a stack should take more than half the time of the
whole one's, and a capture the time of some hundred steps: a guess, until a GPU has been measured."""


def fit_teachers(
    problems: Sequence[tuple[TeacherConfig, Replicate]],
    *,
    compute: Compute | None = None,
    report: Report | None = None,
    checkpoint: Checkpoint | None = None,
    checkpoint_every: int = 0,
    resume: Mapping[int, bytes] | None = None,
) -> list[FittedTeacher]:
    """Train each replicate by its own configuration; those that differ in `SCALARS` alone share a pack.

    report, checkpoint and resume as in `fit_teacher`, but by position in `problems`: a replicate may be there under
    several configurations. Packs are trained one after the other.
    """
    compute = compute or Compute(packed=True)
    packs: dict[tuple[Any, ...], list[int]] = {}
    for i, (config, replicate) in enumerate(problems):
        packs.setdefault((*structure(config), id(replicate.pool)), []).append(i)
    found: dict[int, FittedTeacher] = {}
    for places in packs.values():
        # Replicates of one group of the optimizer stand together.
        places.sort(key=lambda i: optimizer_values(problems[i][0]))
        results = fit_pack(
            [problems[i] for i in places], places, compute, report, checkpoint, checkpoint_every, resume
        )  # fmt: skip
        found |= dict(zip(places, results, strict=True))
    return [found[i] for i in range(len(problems))]


def structure(config: TeacherConfig) -> tuple[Any, ...]:
    """What all configurations of a pack have in common."""
    weights = (config.lambda_adv > 0, config.lambda_noise > 0, config.lambda_ent > 0)
    return (*weights, *(getattr(config, name) for name in config.keys() if name not in SCALARS))  # noqa: SIM118


def fit_pack(
    problems: Sequence[tuple[TeacherConfig, Replicate]],
    numbers: Sequence[int],
    compute: Compute,
    report: Report | None = None,
    checkpoint: Checkpoint | None = None,
    checkpoint_every: int = 0,
    resume: Mapping[int, bytes] | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[FittedTeacher]:
    """`fit_teachers` for problems of one structure and pool. numbers: by which report, checkpoint and resume know
    them; dtype: of parameters and arithmetic (float64 in tests)."""
    pack = Pack(
        [Problem(config, of_member(replicate, config.member)) for config, replicate in problems], compute, dtype
    )
    for number, training in zip(numbers, pack.trainings, strict=True):
        if resume and number in resume:
            training.load_bytes(resume[number])
    train_in_lockstep(numbers, pack.trainings, pack.advance, report, checkpoint, checkpoint_every)
    return pack.evaluate()


class PackedTraining(Training):
    """The state of one replicate, whose parameters may lie in a stack; saved as if it had been trained alone."""

    pack: Pack
    place: int

    def to_bytes(self) -> bytes:
        self.pack.release(self.place)
        return super().to_bytes()


@dataclasses.dataclass(frozen=True)
class Interval:
    """What became of one replicate's interval: loss and parts summed over its steps, and validation logits."""

    last: int
    sums: list[float]
    logit: Any
    seconds: float


class Pack:
    """Problems of one structure in training: who is in the stack, and what their interval came to."""

    def __init__(self, problems: Sequence[Problem], compute: Compute, dtype: torch.dtype = torch.float32) -> None:
        self.problems, self.compute, self.dtype = list(problems), compute, dtype
        self.config = problems[0].config
        self.model = teacher_model(self.config, problems[0].replicate)
        self.room = Capacity.of(problems)
        self.images = images_on(problems[0].replicate.pool, compute.device)
        self.trainings = [self._start(i) for i in range(len(problems))]
        self.stack: Stack | None = None
        self.members: list[int] = []
        self._sets: StackedSets | None = None
        self._ended: dict[int, Interval] = {}
        self._ahead: tuple[list[int], int, Block] | None = None

    def _start(self, i: int) -> PackedTraining:
        problem = self.problems[i]
        values = initial_params(problem.config, self.model, problem.replicate)
        values = {name: value.to(self.dtype) for name, value in values.items()}
        training = PackedTraining(*trainable(problem.config, values, self.compute))
        training.pack, training.place = self, i
        return training

    def advance(self, i: int) -> None:
        """One interval of replicate i, for which all that are as far as it are trained together; see
        `train_in_lockstep`."""
        if i not in self._ended:
            at = self.trainings[i].step
            together = [j for j, t in enumerate(self.trainings) if t.status == "running" and t.step == at]
            most = self.compute.pack or len(together)
            for first in range(0, len(together), most):
                self._run(together[first : first + most])
        ended, training, problem = self._ended.pop(i), self.trainings[i], self.problems[i]
        if i in self.members and self.stack is not None:
            training.params, training.average = self.stack.views(self.members.index(i))
        steps = ended.last - training.step
        means = {name: s / steps for name, s in zip(("train_loss", *PARTS), ended.sums, strict=True)}
        training.seconds += ended.seconds
        over = close_interval(
            problem.config, training, ended.last, means, lambda: validation(problem.replicate, ended.logit),
            "val_bag_nll",
        )  # fmt: skip
        if over:
            training.status = "done"

    def _run(self, together: list[int]) -> None:
        """Steps and validation of one interval of these replicates; waits for the device at its end alone."""
        begin = time.perf_counter()
        stack, sets = self._stacked(together)
        first = self.trainings[together[0]].step
        last = min(first + self.config.eval_every, self.config.steps)
        length = block_steps(stack.problems, self.room)
        for start in range(first, last, length):
            stop = min(start + length, last)
            stack.put_block(self._block(start, stop))
            stack.run(stop - start)
            if stop < last:
                self._draw_ahead(stop, min(stop + length, last))
        sums = stack.take_sums()
        logits = sets.logits(stack.model, stack.snapshot, self.images, self._norm)
        if last < self.config.steps:  # the device is still at work
            self._draw_ahead(last, min(last + length, last + self.config.eval_every, self.config.steps))
        host_sums, host_logits = sums.tolist(), on_host(logits)
        seconds = (time.perf_counter() - begin) / len(together)
        for r, i in enumerate(together):
            self._ended[i] = Interval(last, host_sums[r], host_logits[r][0], seconds)

    def _block(self, first: int, last: int) -> Block:
        if self._ahead and self._ahead[:2] == (self.members, first) and len(self._ahead[2]["rate"]) == last - first:
            return self._ahead[2]
        return draw_block([self.problems[i] for i in self.members], self.room, first, last)

    def _draw_ahead(self, first: int, last: int) -> None:
        self._ahead = (list(self.members), first, self._block(first, last))

    def _stacked(self, together: list[int]) -> tuple[Stack, StackedSets]:
        """A stack that holds these replicates first; a captured one is kept while it is well filled."""
        width = len(together)
        if self.stack is not None and self.stack.graph is not None:
            there = self.stack.replicates
            width = there if REPACK_BELOW * there <= width <= there else width
        members = together + [together[-1]] * (width - len(together))
        if members != self.members or self.stack is None or self._sets is None:
            for i in set(self.members):
                self.release(i)
            problems = [self.problems[i] for i in members]
            if self.stack is None or self.stack.replicates != width:
                self.stack = None  # its memory is needed before the next one's
                self.stack = Stack(StackedModel(self.model, width, self.compute), self.images, self.dtype)
            self.stack.load(problems, [self.trainings[i] for i in members])
            self.members = members
            self._sets = StackedSets([[p.replicate.val] for p in problems], self.images.device)
            self._norm = means_and_stds(problems).to(self.images.device)
        return self.stack, self._sets

    def release(self, i: int) -> None:
        """Bring replicate i's state back from the stack into its `Training`, if it is there and goes on."""
        if self.stack is not None and i in self.members and self.trainings[i].status == "running":
            self.stack.save(self.members.index(i), self.trainings[i])

    def evaluate(self) -> list[FittedTeacher]:
        """The results of all, once none is running."""
        self.stack, self._sets, self.members = None, None, []
        done = [i for i, training in enumerate(self.trainings) if training.status == "done"]
        results: dict[int, FittedTeacher] = {}
        most = self.compute.pack or max(1, len(done))
        for start in range(0, len(done), most):
            begin = time.perf_counter()
            part = done[start : start + most]
            problems = [self.problems[i] for i in part]
            sets = StackedSets([evaluation_bags(p.replicate) for p in problems], self.images.device)
            names = self.trainings[part[0]].best_params
            params = {n: torch.stack([self.trainings[i].best_params[n] for i in part]).contiguous() for n in names}
            model = StackedModel(self.model, len(part), self.compute)
            norm: Tensor = means_and_stds(problems).to(self.images.device)
            predicted = on_host(sets.logits(model, params, self.images, norm))
            each = (time.perf_counter() - begin) / len(part)
            for i, logits in zip(part, predicted, strict=True):
                results[i] = fitted(self.problems[i].replicate, self.trainings[i], logits, time.perf_counter() - each)
        for i, training in enumerate(self.trainings):
            if i not in results:
                results[i] = fitted(self.problems[i].replicate, training, [], math.nan)
        return [results[i] for i in range(len(self.trainings))]
