"""Packed training: all replicates of a configuration in one process, with parameters stacked along a replicate axis.

    fitted = fit_teacher(config, replicates, compute=Compute("cuda", pack=20))
    fitted = fit_teachers([(TeacherConfig(lambda_adv=v), replicate) for v in (0.5, 1.0) for replicate in replicates])

The draws, the formulas and the selection are those of training one by one, so that results agree within rounding, and
a run may go on packed or unpacked from the same checkpoint. One small network leaves a GPU idle; a pack of twenty fills
it, so it is the way on a GPU. On a CPU taking turns was faster in what was measured (`benchmarks/README.md`), but for
vectors in small bags.

Networks: all, the residual one by grouped convolutions. Regularizers, poolings, dropout, stochastic depth, mixup and
augmentation: all. Students are not packed: they are trained by turns on every device.
"""

from __future__ import annotations

import dataclasses
import math
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from d2l_study.data.pool import Replicate
from d2l_study.data.streams import Streams
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.evaluation import evaluation_bags, validation_metrics
from d2l_study.learning.fit_checks import check_fit
from d2l_study.learning.lockstep import Callbacks, train_in_lockstep
from d2l_study.learning.noise_instances import check_noise
from d2l_study.learning.objective import PARTS
from d2l_study.learning.packed.batches import Capacity, ReplicateTask, sizes_seen
from d2l_study.learning.packed.group import Group, IntervalResult, StackTurns
from d2l_study.learning.packed.instances import means_and_stds, pool_on
from d2l_study.learning.packed.model import StackedModel
from d2l_study.learning.packed.prediction import StackedSets, on_host
from d2l_study.learning.packed.stack import optimizer_values
from d2l_study.learning.packed.structure import STACK_VALUES, compilation_pays, structure
from d2l_study.learning.packing import instance_kinds
from d2l_study.learning.prediction import Compute
from d2l_study.learning.teacher_model import initial_params, member_replicate, teacher_model
from d2l_study.learning.training import Training, close_interval, parameters_and_optimizer
from d2l_study.learning.training_result import FittedTeacher, fitted_teacher
from d2l_study.learning.unlabelled_bags import unlabelled_task
from d2l_study.models import Params

MULTIPLE = 8
"""Of which the instances of a compiled step are: matrix units want it, and packs of like bags have like shapes."""


def compiled_where_worth_it(problems: Sequence[ReplicateTask], compute: Compute) -> Compute:
    """`compute` with the choice made whether the step is compiled."""
    if compute.compiled is not None or not compute.compiles:
        return compute

    def seen(p: ReplicateTask) -> float:
        return p.config.batch_bags * float(sizes_seen(p).mean())

    def adversarial(p: ReplicateTask) -> float:
        return seen(p) + (seen(p.unlabelled) if p.unlabelled else 0.0) if p.config.lambda_adv > 0 else 0.0

    def of_all(of: Callable[[ReplicateTask], float]) -> float:
        return sum(p.config.steps * of(p) for p in problems)

    return dataclasses.replace(compute, compiled=compilation_pays(of_all(seen), of_all(adversarial)))


def most_in_a_stack(problems: Sequence[ReplicateTask], capacity: Capacity, compute: Compute) -> int:
    """How many replicates share a stack at most."""
    if compute.pack is not None:
        most = compute.pack
    elif not compute.device.startswith("cuda"):
        most = len(problems)
    else:
        others = 0 if capacity.unlabelled is None else capacity.unlabelled.instances
        most = STACK_VALUES // (
            (capacity.instances + capacity.noise + others) * math.prod(problems[0].replicate.pool.shape)
        )
    return max(1, min(most, len(problems)) >> compute.halvings)


def fit_teachers(
    problems: Sequence[tuple[TeacherConfig, Replicate]],
    *,
    compute: Compute | None = None,
    **callbacks: Unpack[Callbacks],
) -> list[FittedTeacher]:
    """Train each replicate by its own configuration; those that differ in `structure.SCALARS` alone, and read one pool
    in the same units (`instance_kinds`), share a pack.

    The callbacks are those of `fit_teacher`, but know a replicate by its position in `problems`: it may be there under
    several configurations. Packs are trained one after the other.
    """
    compute = compute or Compute(packed=True)
    for config, replicate in problems:
        check_fit(config, [replicate])
        check_noise(config, replicate)
    problems = [(config.in_steps(replicate.epoch_bags), replicate) for config, replicate in problems]
    packs: dict[tuple[Any, ...], list[int]] = {}
    kinds = instance_kinds([replicate for _, replicate in problems])
    for i, ((config, replicate), kind) in enumerate(zip(problems, kinds, strict=True)):
        unlabelled = unlabelled_task(config, replicate) is not None
        packs.setdefault((*structure(config), unlabelled, kind), []).append(i)
    found: dict[int, FittedTeacher] = {}
    for indices in packs.values():
        # Replicates of one group of the optimizer stand together.
        indices.sort(key=lambda i: optimizer_values(problems[i][0]))
        results = fit_pack([problems[i] for i in indices], indices, compute, callbacks)
        found |= dict(zip(indices, results, strict=True))
    return [found[i] for i in range(len(problems))]


def fit_pack(
    problems: Sequence[tuple[TeacherConfig, Replicate]],
    numbers: Sequence[int],
    compute: Compute,
    callbacks: Callbacks,
    dtype: torch.dtype = torch.float32,
) -> list[FittedTeacher]:
    """`fit_teachers` for problems of one structure and one kind of instances. numbers: by which the callbacks know
    them; dtype: of parameters and arithmetic (float64 in tests)."""
    own = [ReplicateTask(config, member_replicate(replicate, config.member)) for config, replicate in problems]
    pack = Pack(own, compute, dtype)
    train_in_lockstep(numbers, pack.trainings, pack.advance, callbacks)
    return pack.evaluate()


class PackedTraining(Training):
    """The state of one replicate, whose parameters may lie in a stack; saved as if it had been trained alone."""

    pack: Pack
    index: int

    def to_bytes(self) -> bytes:
        self.pack.release(self.index)
        return super().to_bytes()


class Pack:
    """Problems of one structure in training, in groups of `most_in_a_stack` at most, and what intervals came to."""

    def __init__(self, problems: Sequence[ReplicateTask], compute: Compute, dtype: torch.dtype = torch.float32) -> None:
        compute = compiled_where_worth_it(problems, compute)
        self.problems, self.compute, self.dtype = list(problems), compute, dtype
        self.model = teacher_model(problems[0].config, problems[0].replicate)
        on_device = compute.device.startswith("cuda")
        self.capacity = Capacity.of(problems, MULTIPLE if compute.compiles else 1, on_device)
        self.pool_instances = pool_on(problems[0].replicate.pool, compute.device)
        first_weights: dict[Streams, Params] = {}  # one draw for all configurations of a replicate
        for problem in self.problems:
            if problem.replicate.streams not in first_weights:
                drawn = initial_params(problem.config, self.model, problem.replicate)
                first_weights[problem.replicate.streams] = {name: v.to(dtype) for name, v in drawn.items()}
        self.trainings = [self._start(i, first_weights[p.replicate.streams]) for i, p in enumerate(self.problems)]
        self.groups: list[Group] = []
        parts = math.ceil(len(problems) / most_in_a_stack(problems, self.capacity, compute))
        places = math.ceil(len(problems) / parts)
        turns: dict[Any, StackTurns] = {}  # of groups that have one set of values for the optimizer
        for indices in np.array_split(np.arange(len(problems)), parts):  # of like sizes
            mine = indices.tolist()
            values = {optimizer_values(self.problems[i].config) for i in mine}
            shared = turns.setdefault(values.pop(), StackTurns()) if len(values) == 1 else StackTurns()
            self.groups.append(Group(
                {i: self.problems[i] for i in mine}, {i: self.trainings[i] for i in mine}, self.model,
                self.pool_instances, self.capacity, compute, dtype, places, shared if compute.compiles else None,
            ))  # fmt: skip
        self._sharing = (
            [[g for g in self.groups if g.turns is one] for one in turns.values()] if compute.compiles else []
        )
        self._group = {i: group for group in self.groups for i in group.problems}
        self._ended: dict[int, IntervalResult] = {}

    def _start(self, i: int, weights: Params) -> PackedTraining:
        training = PackedTraining(*parameters_and_optimizer(self.problems[i].config, weights, self.compute))
        training.pack, training.index = weakref.proxy(self), i  # which ends with its last user, and its memory with it
        return training

    def advance(self, i: int) -> None:
        """One interval of replicate i, for which all of its group that are as far as it are trained together; see
        `train_in_lockstep`."""
        training, problem = self.trainings[i], self.problems[i]
        if i not in self._ended:
            self._merge_groups()
            self._ended |= self._group[i].train(training.step)
        group = self._group[i]
        ended = self._ended.pop(i)
        training.params, training.average = group.views(i) or (training.params, training.average)
        steps = ended.last - training.step
        means = {name: s / steps for name, s in zip(("train_loss", *PARTS), ended.sums, strict=True)}
        training.seconds += ended.seconds
        over = close_interval(
            problem.config, training, ended.last, means, lambda: validation_metrics(problem.replicate, ended.logit),
            "val_bag_nll",
        )  # fmt: skip
        if over:
            training.status = "done"
        if training.status != "running":
            training.params, training.average = training.best_params, {}  # no longer where they lie in the stack
        if group.over:
            group.close()

    def _merge_groups(self) -> None:
        """Dissolve groups of a compiled stack as long as the others have room for their replicates: places of those
        that have ended are computed in vain. It waits until all in training are equally far."""
        running = [training for training in self.trainings if training.status == "running"]
        if self._ended or len({training.step for training in running}) > 1:
            return
        for sharing in self._sharing:
            self._merge(sharing)

    def _merge(self, sharing: Sequence[Group]) -> None:
        """The same for groups that share a stack."""
        while True:
            groups = sorted((group for group in sharing if not group.over), key=lambda group: group.room)
            if len(groups) < 2 or len(groups[-1].running) > sum(group.room for group in groups[:-1]):
                return
            *others, smallest = groups
            moved = smallest.dissolve()
            for group in reversed(others):  # into as few as possible
                arrivals = {i: moved.pop(i) for i in list(moved)[: group.room]}
                if arrivals:
                    group.admit(arrivals)
                    self._group |= dict.fromkeys(arrivals, group)

    def release(self, i: int) -> None:
        """Bring replicate i's state back into its `Training`, as if it had been trained alone."""
        self._group[i].release(i)

    def evaluate(self) -> list[FittedTeacher]:
        """The results of all, once none is running."""
        done = [i for i, training in enumerate(self.trainings) if training.status == "done"]
        results: dict[int, FittedTeacher] = {}
        most = most_in_a_stack(self.problems, self.capacity, self.compute)
        for start in range(0, len(done), most):
            begin = time.perf_counter()
            part = done[start : start + most]
            problems = [self.problems[i] for i in part]
            sets = StackedSets([evaluation_bags(p.replicate) for p in problems], self.pool_instances.device)
            names = self.trainings[part[0]].best_params
            params = {n: torch.stack([self.trainings[i].best_params[n] for i in part]).contiguous() for n in names}
            model = StackedModel(self.model, len(part), self.compute)
            norm: Tensor = means_and_stds(problems).to(self.pool_instances.device)
            predicted = on_host(sets.logits(model, params, self.pool_instances, norm))
            each = (time.perf_counter() - begin) / len(part)
            for i, logits in zip(part, predicted, strict=True):
                results[i] = fitted_teacher(
                    self.problems[i].replicate, self.trainings[i], logits, time.perf_counter() - each
                )
        for i, training in enumerate(self.trainings):
            if i not in results:
                results[i] = fitted_teacher(self.problems[i].replicate, training, [], math.nan)
        return [results[i] for i in range(len(self.trainings))]
