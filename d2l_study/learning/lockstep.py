"""The training loop of all replicates of a configuration: in lockstep, one validation interval each, by turns.

trainers = [TeacherTrainer(config, model, replicate, compute) for replicate in replicates]
results = fit_in_lockstep(trainers, callbacks)
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypedDict, TypeVar

from d2l_study.data.pool import Replicate
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.training import Training

Report = Callable[[int, Mapping[int, Mapping[str, float]]], None]
Checkpoint = Callable[[int, bytes], None]
Result = TypeVar("Result")


class Callbacks(TypedDict, total=False):
    """How a training tells of itself, saves itself and goes on; every function that fits takes these as keywords.

    report: called once per validation interval with the step and each running replicate's values. checkpoint: called
    with a replicate's number and its state, at the first interval's end after every `checkpoint_every` steps (0:
    never; None: by time, see `CheckpointTimer`). resume: replicate number -> such a state, from which the replicate
    goes on.
    """

    report: Report | None
    checkpoint: Checkpoint | None
    checkpoint_every: int | None
    resume: Mapping[int, bytes] | None


class TrainingState(Protocol):
    """A replicate in training. position: optimizer steps done so far; curve: the values of each interval."""

    status: str
    curve: list[dict[str, float]]

    @property
    def position(self) -> int: ...

    def to_bytes(self) -> bytes: ...

    def load_bytes(self, data: bytes) -> None: ...


class ReplicateTrainer(ABC, Generic[Result]):
    """One replicate with the state of its training. A subclass says what an interval is, and what is evaluated."""

    def __init__(self, replicate: Replicate, training: Training, compute: Compute) -> None:
        self.replicate, self.training, self.compute = replicate, training, compute
        self.normalise = Normalise.of(replicate, compute)

    @abstractmethod
    def advance(self) -> None:
        """Train one interval up to its validation; sets `training.status` once the training is over."""

    @abstractmethod
    def evaluate(self) -> Result:
        """The result of a training that is over."""


def fit_in_lockstep(trainers: Sequence[ReplicateTrainer[Result]], callbacks: Callbacks) -> list[Result]:
    """Train all replicates, then evaluate each; the results are in the order of the trainers."""
    train_in_lockstep(
        [trainer.replicate.number for trainer in trainers], [trainer.training for trainer in trainers],
        lambda i: trainers[i].advance(), callbacks,
    )  # fmt: skip
    return [trainer.evaluate() for trainer in trainers]


CHECKPOINT_SECONDS = 120.0
"""The least time between checkpoints that are made by time."""

MOST_SAVING = 0.05
"""The most of its time that a training may spend on saving its state."""


class CheckpointTimer:
    """Says when it is time to save all running replicates: after `CHECKPOINT_SECONDS`, and later where saving takes
    long. On a GPU some hundred replicates may be trained at once, whose states are gigabytes."""

    def __init__(self) -> None:
        self._next = time.monotonic() + CHECKPOINT_SECONDS

    def due(self) -> bool:
        """Whether the time has come."""
        return time.monotonic() >= self._next

    def saved(self, seconds: float) -> None:
        """All have been saved, which took so long."""
        self._next = time.monotonic() + max(CHECKPOINT_SECONDS, seconds / MOST_SAVING)


def train_in_lockstep(
    numbers: Sequence[int], trainings: Sequence[TrainingState], advance: Callable[[int], Any], callbacks: Callbacks
) -> None:
    """Call `advance(i)`, one interval of the i-th replicate, until none is `running` any more.

    numbers: by which the callbacks know the replicates. Those in `resume` go on from their states. `TypeError` for a
    callback that is not known.
    """
    if unknown := callbacks.keys() - Callbacks.__annotations__.keys():
        raise TypeError(f"unexpected keyword {min(unknown)!r}; expected one of {', '.join(Callbacks.__annotations__)}")
    report, checkpoint = callbacks.get("report"), callbacks.get("checkpoint")
    every, resume = callbacks.get("checkpoint_every", 0), callbacks.get("resume") or {}
    for number, training in zip(numbers, trainings, strict=True):
        if number in resume:
            training.load_bytes(resume[number])
    timer = CheckpointTimer()
    while any(t.status == "running" for t in trainings):
        by_time, saving = every is None and timer.due(), 0.0
        # Replicates resumed from different steps meet again: the one furthest behind sets the pace.
        behind = min(t.position for t in trainings if t.status == "running")
        values: dict[int, Mapping[str, float]] = {}
        for i, (number, training) in enumerate(zip(numbers, trainings, strict=True)):
            if training.status != "running" or training.position != behind:
                continue
            advance(i)
            values[number] = training.curve[-1]
            due = by_time or (every and behind // every != training.position // every)
            if checkpoint and due and training.status == "running":
                begin = time.monotonic()
                checkpoint(number, training.to_bytes())
                saving += time.monotonic() - begin
        if by_time:
            timer.saved(saving)
        if report:
            report(max(int(v["step"]) for v in values.values()), values)
