"""R replicates as stacked parameters: their optimizer, one training step of them all, and that step as a CUDA graph.

Data stay on the device: the pool as uint8, a block of steps as index arrays and draws. A step reads its place in the
block from a counter on the device and adds its losses to sums there, so that between two validations the host waits for
nothing; captured as a CUDA graph, a step is a single launch.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2l_study.device_errors import out_of_memory
from d2l_study.errors import SlowStepsWarning, first_line
from d2l_study.learning.adam import Adam
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.objective import PARTS
from d2l_study.learning.packed.batches import UNLABELLED, ReplicateTask
from d2l_study.learning.packed.compiled import Function, compiled, why_not_compiled
from d2l_study.learning.packed.device_motion import move_patches
from d2l_study.learning.packed.host_blocks import StagedBlock
from d2l_study.learning.packed.instances import means_and_stds
from d2l_study.learning.packed.model import StackedModel
from d2l_study.learning.packed.objective import stacked_teacher_loss
from d2l_study.learning.packed.stacked_batch import stacked_batch
from d2l_study.learning.packed.structure import structure
from d2l_study.learning.prediction import Compute
from d2l_study.learning.training import Training, parameters_and_optimizer
from d2l_study.models import Params

CONSTANT = ("scalars", "norm")
"""Arrays on the device that all steps of a block have in common."""

OF_OPTIMIZER = ("rate", "share")
"""Arrays of a block that the loss does not read."""

MOVED = ("instance", "motion")
"""Arrays of a block that become its `patches` on the device."""

WARM_UP_STEPS = 2
"""Steps before a capture, undone afterwards: libraries choose their algorithms and allocate in them."""


def why_no_graphs(device: torch.device, compute: Compute) -> str | None:
    """Why steps are not to be replayed from a CUDA graph; None if they are."""
    if device.type != "cuda":
        return f"CUDA graphs need a CUDA device; this is {device.type}"
    return None if compute.graphs else "CUDA graphs are turned off"


@dataclass(frozen=True)
class StackState:
    """Problems in a stack, and the tensors of their training."""

    problems: tuple[ReplicateTask, ...]
    tensors: list[Tensor]


class CudaGraphState:
    """What all stacks on a device have in common while a process lives: the stream that their steps are captured on,
    the steps that are compiled, and why none is captured or compiled any more, if one could not be. A capture that
    failed may leave memory behind, so it is not tried again."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.failed: str | None = None
        self.uncompiled: str | None = None
        self._stream: torch.cuda.Stream | None = None
        self.compiled: dict[tuple[Any, ...], Function] = {}  # by all that a step's form depends on

    def stream(self) -> torch.cuda.Stream:
        # One for all: memory is kept for every stream that was worked on.
        self._stream = self._stream or torch.cuda.Stream(self.device)
        return self._stream


@cache
def cuda_graph_state(device: torch.device) -> CudaGraphState:
    return CudaGraphState(device)


class Stack:
    """The parameters of some problems, side by side, and their training step.

    It holds copies: `load` takes them from the replicates' own `Training`, `save` brings them back. More problems than
    replicates may be given one after the other, by further loads.
    """

    def __init__(self, model: StackedModel, pool_instances: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.pool_instances, self.dtype = model, pool_instances, dtype
        self.captures = cuda_graph_state(pool_instances.device)
        self.device, self.replicates = pool_instances.device, model.replicates
        self.params: Params = {}
        self.average: Params = {}  # their running means, where the configuration asks for them
        self.graph: torch.cuda.CUDAGraph | None = None
        self.eager_reason = why_no_graphs(self.device, model.compute) or self.captures.failed
        self.plain_reason = why_not_compiled(self.device, model.compute) or self.captures.uncompiled
        self.compile_seconds = 0.0
        self._compiled: Function | None = None
        self._buffers: dict[str, Tensor] = {}
        self._rows: list[tuple[int, int]] = []  # of each group of the optimizer
        self._values: list[tuple[str, float, float, float, float, int]] = []
        self._rate = np.zeros((0, 0))
        self.problems: tuple[ReplicateTask, ...] = ()
        self._at = torch.zeros(1, dtype=torch.int64, device=self.device)  # the place of the next step in the block
        self._sums = torch.zeros(self.replicates, 1 + len(PARTS), device=self.device, dtype=dtype)

    # ---- what is stacked
    def load(self, problems: Sequence[ReplicateTask], trainings: Sequence[Training]) -> None:
        """Take parameters and optimizer state of R trainings of one position."""
        self.problems = tuple(problems)
        stacked = {name: torch.stack([t.params[name].detach() for t in trainings]) for name in trainings[0].params}
        stacked = {name: value.to(self.device, self.dtype).contiguous() for name, value in stacked.items()}
        if self.params.keys() == stacked.keys():
            for name, value in stacked.items():
                self.params[name].detach().copy_(value)
        else:
            self.params = {name: value.requires_grad_(True) for name, value in stacked.items()}
        if self.problems[0].config.weight_average > 0 and not self.average:
            self.average = {name: torch.zeros_like(value, requires_grad=False) for name, value in self.params.items()}
        rows = _equal_rows([optimizer_values(p.config) for p in problems])
        values = [optimizer_values(problems[first].config) for first, _ in rows]
        if rows != self._rows or values != self._values:
            self._rows, self._values = rows, values
            self._make_optimizer()
        for (first, _), group in zip(rows, self.optimizer.param_groups, strict=True):
            for value in group["params"]:
                self.optimizer.state[value]["step"].fill_(float(trainings[first].step))
        for r, training in enumerate(trainings):
            self._load_average(r, training)
            self._load_moments(r, training)
        self._put({"scalars": self._scalars(problems), "norm": means_and_stds(problems)})

    def replace(self, r: int, problem: ReplicateTask, training: Training) -> None:
        """Put another replicate in r's place, of the same position and the same group of the optimizer as r's. What was
        compiled and captured stays."""
        self.problems = (*self.problems[:r], problem, *self.problems[r + 1 :])
        for name, value in self.params.items():
            value.detach()[r].copy_(training.params[name].detach())
        self._load_average(r, training)
        self._load_moments(r, training)
        for name, values in (("scalars", self._scalars([problem])), ("norm", means_and_stds([problem]))):
            self._buffers[name][r].copy_(values[0])

    def _scalars(self, problems: Sequence[ReplicateTask]) -> Tensor:
        """(R, 2): ε and ξ."""
        return torch.from_numpy(np.array([[p.config.epsilon, p.config.xi] for p in problems])).to(self.dtype)

    def _load_average(self, r: int, training: Training) -> None:
        for name, mean in self.average.items():
            if training.average:
                mean[r].copy_(training.average[name])
            else:  # at its first step, whose share is 1; what another has left there may be no number
                mean[r].zero_()

    @property
    def snapshot(self) -> Params:
        """What is validated; see `Training.snapshot`."""
        return self.average or self.params

    def _make_optimizer(self) -> None:
        """PyTorch's fused Adam on slices of the stacked tensors, one group for replicates of equal settings."""
        self.graph = None  # it would go on with the old one's tensors
        cuda = self.device.type == "cuda"
        groups = []
        for (first, last), (_, rate, weight_decay, beta1, beta2, _) in zip(self._rows, self._values, strict=True):
            groups.append({
                "params": [value.detach()[first:last] for value in self.params.values()],
                "lr": torch.tensor(rate, device=self.device) if cuda else rate,
                "weight_decay": weight_decay, "betas": (beta1, beta2),
            })  # fmt: skip
        self.optimizer = Adam(groups, fused=True, capturable=cuda)
        for group in self.optimizer.param_groups:
            for value in group["params"]:
                self.optimizer.state[value] = {
                    "step": torch.zeros((), device=self.device),
                    "exp_avg": torch.zeros_like(value), "exp_avg_sq": torch.zeros_like(value),
                }  # fmt: skip

    def _load_moments(self, r: int, training: Training) -> None:
        """Replicate r's moments of Adam, zeros before its first step."""
        group, place = self._place(r)
        for name, value in zip(self.params, group["params"], strict=True):
            state, found = self.optimizer.state[value], training.optimizer.state.get(training.params[name], {})
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in found:
                    state[moment][place].copy_(found[moment])
                else:
                    state[moment][place].zero_()

    def _place(self, r: int) -> tuple[dict[str, Any], int]:
        """The group of the optimizer that replicate r is in, and its place there."""
        ((i, first),) = [(i, first) for i, (first, last) in enumerate(self._rows) if first <= r < last]
        return self.optimizer.param_groups[i], r - first

    def save(self, r: int, training: Training) -> None:
        """Bring replicate r's parameters and optimizer state back, as if it had been trained alone."""
        values = {name: value.detach()[r] for name, value in self.params.items()}
        training.params, training.optimizer = parameters_and_optimizer(
            self.problems[r].config, values, self.model.compute
        )
        training.average = {
            name: torch.empty_like(training.params[name], requires_grad=False).copy_(value[r])
            for name, value in self.average.items()
        }
        group, place = self._place(r)
        for own, value in zip(training.params.values(), group["params"], strict=True):
            state = self.optimizer.state[value]
            # In the layout of the parameter: the fused kernel reads both as they lie in memory.
            training.optimizer.state[own] = {"step": state["step"].clone().to(torch.float32)} | {
                moment: torch.empty_like(own, requires_grad=False).copy_(state[moment][place])
                for moment in ("exp_avg", "exp_avg_sq")
            }

    def state(self) -> StackState:
        """A copy of all that steps change, and of what they read beside the block."""
        return StackState(self.problems, [value.clone() for value in self._changed()])

    def restore(self, state: StackState) -> None:
        """Go on from a state of a stack with the same groups of the optimizer."""
        self.problems = state.problems
        for value, kept in zip(self._changed(), state.tensors, strict=True):
            value.copy_(kept)

    def _changed(self) -> list[Tensor]:
        found = [value.detach() for value in self.params.values()] + list(self.average.values())
        for moments in self.optimizer.state.values():
            found += moments.values()
        return found + [self._buffers[name] for name in CONSTANT]

    def views(self, r: int) -> tuple[Params, Params]:
        """Replicate r's parameters and their means where they lie in the stack; the next step changes them."""
        params, average = (
            {name: value.detach()[r] for name, value in kept.items()} for kept in (self.params, self.average)
        )
        return params, average

    # ---- steps
    def put_block(self, block: StagedBlock) -> None:
        """Copy the block of the next steps to the device, behind the steps that are still to run there."""
        of_groups = [first for first, _ in self._rows]  # of the optimizer
        self._rate = np.ascontiguousarray(block.rate[:, of_groups])
        self._put({**block.arrays, "rate": torch.from_numpy(self._rate)})
        for start in ("", UNLABELLED):
            self._move_patches(start, len(self._rate))
        if block.copied is not None:
            block.copied.record()
        self._at.zero_()

    def _move_patches(self, start: str, steps: int) -> None:
        """Make the patches of the block where the device moves them; start: of the names of the arrays."""
        instance, motion = (self._buffers.get(start + name) for name in MOVED)
        if instance is None or motion is None:
            return
        patches = self._buffer(f"{start}patches", (*instance.shape, *self.pool_instances.shape[1:]), torch.uint8)
        move_patches(self.problems[0].config, self.pool_instances, instance[:steps], motion[:steps], patches)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The array of that name on the device, made anew where what is there has not the room."""
        there = self._buffers.get(name)
        if there is None or there.shape[1:] != shape[1:] or len(there) < shape[0]:
            self._buffers[name] = there = torch.zeros(shape, dtype=dtype, device=self.device)
            self.graph = self._compiled = None
        return there

    def _put(self, arrays: dict[str, Tensor]) -> None:
        for name, values in arrays.items():
            there = self._buffer(name, values.shape, values.dtype)
            if self.device.type == "cuda":
                values = values.pin_memory()  # at once, if it is there already
            there[: len(values)].copy_(values, non_blocking=True)

    def run(self, steps: int) -> None:
        """The first `steps` steps of the block."""
        if self._compiled is None and self.plain_reason is None:
            self._compile()
        if self.graph is None and self.eager_reason is None:
            self._capture()
        for t in range(steps):
            if self.graph is not None:
                self.graph.replay()
                continue
            for i, group in enumerate(self.optimizer.param_groups):
                if not isinstance(group["lr"], Tensor):
                    group["lr"] = float(self._rate[t, i])
            self._step()

    def take_sums(self) -> Tensor:
        """(R, 1 + parts): loss and parts summed over the steps since the last call, on the device."""
        sums = self._sums.clone()
        self._sums.zero_()
        return sums

    def _step(self) -> None:
        losses, parts, *gradients = (self._compiled or self._losses_and_gradients)(*self._arguments())
        for i, ((first, last), group) in enumerate(zip(self._rows, self.optimizer.param_groups, strict=True)):
            for value, gradient in zip(group["params"], gradients, strict=True):
                value.grad = gradient[first:last]
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(self._buffers["rate"].index_select(0, self._at)[0, i])
        self.optimizer.step()
        for name, mean in self.average.items():
            value = self.params[name].detach()
            share = self._buffers["share"].index_select(0, self._at)[0].to(self.dtype)
            mean.lerp_(value, share.view(-1, *[1] * (value.dim() - 1)))
        self._sums += torch.cat([losses[:, None], parts], 1)
        self._at += 1

    def _arguments(self) -> tuple[list[Tensor], dict[str, Tensor], Tensor, dict[str, Tensor], Tensor]:
        """What `_losses_and_gradients` takes. The tensors stay the same from step to step."""
        unread = {*CONSTANT, *OF_OPTIMIZER}
        for start in ("", UNLABELLED):
            if f"{start}motion" in self._buffers:
                unread |= {start + name for name in MOVED}
        of_steps = {name: values for name, values in self._buffers.items() if name not in unread}
        constant = {name: self._buffers[name] for name in CONSTANT}
        return [value.detach() for value in self.params.values()], of_steps, self._at, constant, self.pool_instances

    def _losses_and_gradients(
        self, leaves: list[Tensor], blocks: dict[str, Tensor], at: Tensor, constant: dict[str, Tensor], pool: Tensor
    ) -> tuple[Tensor, ...]:
        """Losses (R,), parts (R, 4) and the gradients of the parameters, of the step `at` of the blocks: a function of
        its arguments alone, so that it can be compiled."""
        now = {name: values.index_select(0, at)[0] for name, values in blocks.items()}
        leaves = [value.detach().requires_grad_(True) for value in leaves]
        batch = stacked_batch(self.model.formulation, now, constant["scalars"], constant["norm"], pool, self.dtype)
        params = dict(zip(self.params, leaves, strict=True))
        losses, parts = stacked_teacher_loss(self.model, params, batch, self.problems[0].config)
        gradients = torch.autograd.grad(losses.sum(), leaves)
        return losses.detach(), parts, *(gradient.contiguous() for gradient in gradients)

    def _compile(self) -> None:
        """Compile the step for the shapes of the block. Where that fails, steps are taken as they are written, and
        `plain_reason` says why."""
        begin = time.perf_counter()
        shapes = tuple((name, values.shape, values.dtype) for name, values in sorted(self._buffers.items()))
        pool = (self.pool_instances.shape, self.pool_instances.dtype)
        key = (self.model, self.dtype, structure(self.problems[0].config), shapes, pool)
        self._compiled = self.captures.compiled.get(key)
        if self._compiled is not None:
            return
        try:
            self._compiled = compiled(self._losses_and_gradients, self._arguments())
            self.captures.compiled[key] = self._compiled
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # of whatever the compiler is made of
            if out_of_memory(error):  # in the compiler's words
                raise
            self.captures.uncompiled = self.plain_reason = f"the step could not be compiled: {first_line(error)}"
            warnings.warn(f"steps are not compiled: {first_line(error)}", SlowStepsWarning, stacklevel=2)
        self.compile_seconds = time.perf_counter() - begin

    # ---- CUDA graphs
    def _capture(self) -> None:
        """Record one step. Where that fails, steps go on one launch at a time, and `eager_reason` says why."""
        state = [value.detach() for value in self.params.values()] + [self._at, self._sums]
        state += self.average.values()
        for kept in self.optimizer.state.values():
            state += kept.values()
        before = [value.clone() for value in state]

        def restore() -> None:
            for value, old in zip(state, before, strict=True):
                value.copy_(old)

        stream, current = self.captures.stream(), torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP_STEPS):
                    self._step()
                    self._at.zero_()
                restore()
                torch.cuda.synchronize(self.device)
                # What earlier graphs and the warm-up have left: while capturing, nothing of it can be had.
                torch.cuda.empty_cache()
                self.graph = self._captured()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if out_of_memory(error):  # by another name
                raise
            self.captures.failed = self.eager_reason = f"the step could not be captured: {first_line(error)}"
            warnings.warn(f"CUDA graphs are not used: {self.eager_reason}", SlowStepsWarning, stacklevel=2)
            current.wait_stream(stream)
            restore()
        else:
            current.wait_stream(stream)

    def _captured(self) -> torch.cuda.CUDAGraph:
        """One step as a graph. Not by `torch.cuda.graph`: it would leave its stream in place when a capture fails, put
        the failure of ending it in the cause's place, and give the host's pinned memory back for every stack."""
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin()
        try:
            self._step()
        except BaseException:
            with suppress(RuntimeError):  # that the capture is not valid, which is known
                graph.capture_end()
            raise
        graph.capture_end()
        return graph


def optimizer_values(config: TeacherConfig) -> tuple[str, float, float, float, float, int]:
    """What replicates of one group of the optimizer have in common: course and size of the rate, and Adam's others."""
    adam = (config.learning_rate, config.weight_decay, config.adam_beta1, config.adam_beta2)
    return (config.decay, *adam, config.warmup_steps)


def _equal_rows(values: Sequence[object]) -> list[tuple[int, int]]:
    """Runs of neighbours with equal values, as (first, one behind the last)."""
    ends = [i for i in range(1, len(values)) if values[i] != values[i - 1]] + [len(values)]
    return list(zip([0, *ends[:-1]], ends, strict=True))
