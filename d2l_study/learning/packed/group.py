"""Replicates of a pack that share one stack from their first step to their last, and their blocks of steps ahead."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d2l_study.learning.packed.batches import Capacity, ReplicateTask, block_steps, draw_block
from d2l_study.learning.packed.host_blocks import PinnedBlocks, StagedBlock, staged
from d2l_study.learning.packed.instances import means_and_stds
from d2l_study.learning.packed.model import StackedModel
from d2l_study.learning.packed.prediction import StackedSets, on_host
from d2l_study.learning.packed.stack import Stack, StackState
from d2l_study.learning.prediction import Compute
from d2l_study.learning.training import Training
from d2l_study.models import MilModel, Params

REPACK_BELOW = 0.5
"""A captured stack whose share of replicates in training falls below this is made anew with those alone; until then
those that have ended keep their places and are computed in vain. A step of half a stack should take more than half the
time of the whole one's, and a capture the time of some hundred steps: a guess, until a GPU has been measured."""


@dataclasses.dataclass(frozen=True)
class IntervalResult:
    """One replicate's interval: its last step, loss and parts summed over its steps, validation logits, and seconds."""

    last: int
    sums: list[float]
    logit: Any
    seconds: float


class StackTurns:
    """A compiled stack that groups of like sizes train in by turns, so that one of them is compiled, captured and kept
    in memory. Whose turn it is has its state in it; the others keep theirs beside."""

    def __init__(self) -> None:
        self.stack: Stack | None = None
        self.users: set[int] = set()
        self._group: Group | None = None

    def begin(self, group: Group) -> None:
        """It is this group's turn."""
        if self._group is group or self.stack is None:
            self._group = group
            return
        if self._group is not None:
            self._group.state = self.stack.state()
        if group.state is not None:
            self.stack.restore(group.state)
        group.state, self._group = None, group

    def end(self, group: Group) -> None:
        """The group is over; the last one takes the stack with it."""
        group.state = None
        if self._group is group:
            self._group = None
        self.users.discard(id(group))
        if not self.users:
            self.stack = None


class Group:
    """Some problems of one structure with their trainings, by their numbers in the pack.

    The group is the same all the time, so that what was drawn ahead is what is trained next; its stack stays on the
    device, and is made anew when few of it are left.
    """

    def __init__(
        self, problems: Mapping[int, ReplicateTask], trainings: Mapping[int, Training], model: MilModel,
        pool_instances: Tensor, capacity: Capacity, compute: Compute, dtype: torch.dtype, places: int,
        turns: StackTurns | None,
    ) -> None:  # fmt: skip
        self.places = places  # of a compiled stack, which is compiled for as many
        self.turns = turns
        self.state: StackState | None = None  # while another group trains in the stack
        if turns is not None:
            turns.users.add(id(self))
        self.problems, self.trainings = dict(problems), dict(trainings)
        self.model, self.pool_instances, self.capacity = model, pool_instances, capacity
        self.compute, self.dtype = compute, dtype
        self.stack: Stack | None = None
        self.members: list[int] = []
        self._sets: StackedSets | None = None
        self._length = 0  # of a block, in steps
        self._pinned = PinnedBlocks() if pool_instances.device.type == "cuda" else None
        self._ahead: tuple[list[int], int, int, StagedBlock] | None = None

    def train(self, at: int) -> dict[int, IntervalResult]:
        """Steps and validation of one interval of all that are in training and at this step; the host waits for the
        device at its end alone."""
        together = [i for i, t in self.trainings.items() if t.status == "running" and t.position == at]
        config = self.problems[together[0]].config
        begin = time.perf_counter()
        stack, sets = self._stacked(together)
        last = min(at + config.eval_every, config.steps)
        length = self._length
        for start in range(at, last, length):
            stop = min(start + length, last)
            stack.put_block(self._block(start, stop))
            stack.run(stop - start)
            if stop < last:
                self._draw_ahead(stop, min(stop + length, last))
        sums = stack.take_sums()
        logits = sets.logits(stack.model, stack.snapshot, self.pool_instances, self._norm)
        if last < config.steps:  # the device is still at work
            self._draw_ahead(last, min(last + length, last + config.eval_every, config.steps))
        host_sums, host_logits = sums.tolist(), on_host(logits)
        seconds = (time.perf_counter() - begin) / len(together)
        indices = {i: self.members.index(i) for i in together}
        return {i: IntervalResult(last, host_sums[r], host_logits[r][0], seconds) for i, r in indices.items()}

    def views(self, i: int) -> tuple[Params, Params] | None:
        """Parameters and their means of replicate i where they lie in the stack, if it is there; until the stack trains
        on."""
        if self.stack is None or i not in self.members:
            return None
        self._take_turn()
        return self.stack.views(self.members.index(i))

    def release(self, i: int) -> None:
        """Bring replicate i's state back from the stack into its `Training`, if it is there and goes on."""
        if self.stack is not None and i in self.members and self.trainings[i].status == "running":
            self._take_turn()
            self.stack.save(self.members.index(i), self.trainings[i])

    def _take_turn(self) -> None:
        if self.turns is not None:
            self.turns.begin(self)

    @property
    def over(self) -> bool:
        return not self.running

    @property
    def running(self) -> list[int]:
        """Those in training."""
        return [i for i, training in self.trainings.items() if training.status == "running"]

    @property
    def room(self) -> int:
        """Places of replicates that have ended, or that repeat another: they are computed in vain."""
        return self.places - len(self.running)

    def dissolve(self) -> dict[int, tuple[ReplicateTask, Training]]:
        """Give up those in training, for `admit` of other groups, and leave the device."""
        moved = self.running
        for i in moved:
            self.release(i)
        self.close()
        return {i: (self.problems.pop(i), self.trainings.pop(i)) for i in moved}

    def admit(self, arrivals: Mapping[int, tuple[ReplicateTask, Training]]) -> None:
        """Take replicates of a group of the same compiled stack into places that are computed in vain, at most `room`
        of them. All are of the position of those in training here; those stay where they are."""
        for i, (problem, training) in arrivals.items():
            self.problems[i], self.trainings[i] = problem, training
        if self.stack is None:  # it will be loaded with all of them
            return
        self._take_turn()
        first = {i: self.members.index(i) for i in self.running if i in self.members}
        vacant = sorted(set(range(len(self.members))) - set(first.values()))
        before, places = list(self.members), vacant[: len(arrivals)]
        for r, (i, (problem, training)) in zip(places, arrivals.items(), strict=True):
            self.members[r] = i
            self.stack.replace(r, problem, training)
        if self._ahead is not None and self._ahead[0] == before:
            _, start, stop, block = self._ahead
            draw_block(self._problems_of_members(), self.capacity, start, stop, block.block, places)
            self._ahead = (list(self.members), start, stop, block)
        self._prepare_validation()

    def close(self) -> None:
        """Leave the device."""
        if self.turns is not None:
            self.turns.end(self)
        self.stack, self._sets, self._ahead, self.members = None, None, None, []

    def _block(self, first: int, last: int) -> StagedBlock:
        if self._ahead and self._ahead[:3] == (self.members, first, last):
            return self._ahead[3]
        problems = self._problems_of_members()
        if self._pinned is None:
            return staged(draw_block(problems, self.capacity, first, last))
        into, copied = self._pinned.next(problems, self.capacity, self._length)
        return staged(draw_block(problems, self.capacity, first, last, into), copied)

    def _draw_ahead(self, first: int, last: int) -> None:
        self._ahead = (list(self.members), first, last, self._block(first, last))

    def _stacked(self, together: Sequence[int]) -> tuple[Stack, StackedSets]:
        """A stack that holds these replicates; a captured one is kept while it is well filled, and a compiled one as
        long as any is left. Places that are left over in it repeat its first replicate."""
        stack = self.stack
        kept = stack is not None and stack.graph is not None and len(together) >= REPACK_BELOW * stack.replicates
        members = list(together)
        if self.turns is not None:
            self.turns.begin(self)
            kept = stack is not None
            members += [together[0]] * (self.places - len(together))
        if kept and set(together) <= set(self.members):
            members = self.members
        if members != self.members or stack is None or self._sets is None:
            for i in dict.fromkeys(self.members):
                self.release(i)
            problems = [self.problems[i] for i in members]
            if stack is None or stack.replicates != len(members):
                self.stack = stack = None  # its memory is needed before the next one's
                self.stack = stack = self._new_stack(len(members))
            stack.load(problems, [self.trainings[i] for i in members])
            self.members = members
            self._length = block_steps(problems, self.capacity)
            self._prepare_validation()
        assert self._sets is not None
        return stack, self._sets

    def _problems_of_members(self) -> list[ReplicateTask]:
        return [self.problems[i] for i in self.members]

    def _prepare_validation(self) -> None:
        """Bring the validation bags of the members to the device."""
        problems = self._problems_of_members()
        self._sets = StackedSets([[p.replicate.val] for p in problems], self.pool_instances.device)
        self._norm = means_and_stds(problems).to(self.pool_instances.device)

    def _new_stack(self, replicates: int) -> Stack:
        if self.turns is not None and self.turns.stack is not None:
            return self.turns.stack
        stack = Stack(StackedModel(self.model, replicates, self.compute), self.pool_instances, self.dtype)
        if self.turns is not None:
            self.turns.stack = stack
        return stack
