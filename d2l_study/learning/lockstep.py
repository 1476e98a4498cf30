"""All replicates of a configuration in lockstep, on a CPU by turns: one interval each, one report per interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

Report = Callable[[int, Mapping[int, Mapping[str, float]]], None]
"""Called once per interval with the step and each running replicate's values."""
Checkpoint = Callable[[int, bytes], None]
"""Called with a replicate's number and its state, to be given back as `resume`."""


class Trained(Protocol):
    """A replicate in training. position: optimizer steps done so far; curve: the values of each interval."""

    status: str
    curve: list[dict[str, float]]

    @property
    def position(self) -> int: ...

    def to_bytes(self) -> bytes: ...


def train_in_lockstep(
    numbers: Sequence[int],
    trainings: Sequence[Trained],
    advance: Callable[[int], None],
    report: Report | None,
    checkpoint: Checkpoint | None,
    checkpoint_every: int,
) -> None:
    """Call `advance(i)`, one interval of the i-th replicate, until none is `running` any more.

    A checkpoint is due at the first interval's end after every `checkpoint_every` steps (0: never).
    """
    while any(t.status == "running" for t in trainings):
        # Replicates resumed from different steps meet again: the one furthest behind sets the pace.
        behind = min(t.position for t in trainings if t.status == "running")
        values: dict[int, Mapping[str, float]] = {}
        for i, (number, training) in enumerate(zip(numbers, trainings, strict=True)):
            if training.status != "running" or training.position != behind:
                continue
            advance(i)
            values[number] = training.curve[-1]
            due = checkpoint_every and behind // checkpoint_every != training.position // checkpoint_every
            if checkpoint and due and training.status == "running":
                checkpoint(number, training.to_bytes())
        if report:
            report(max(int(v["step"]) for v in values.values()), values)
