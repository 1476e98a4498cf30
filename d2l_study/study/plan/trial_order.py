"""The order in which trials are given out: results first, so that a study that is stopped early has told the most.

A task is what arms are compared on: one combination of the data keys that are axes of the space, n and K of bags of
digits for example. Tasks come one after another, the one that is cheapest to complete first, each with all its arms.
Only at the end this would cost time: a long trial that is begun last keeps all other places waiting. So each trial has
a latest start, from which on it goes before the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

LEAD = 2.0
"""Lengths of a trial between its latest start and the end. 1 would do if predictions came true and every place were
busy to the end; by simulation (`benchmarks/trial_order.py`) 2 halves what the order costs, and more gains little."""


@dataclass(frozen=True)
class OrderedTrial:
    """What the order of a trial depends on.

    task: what its arms are compared on; length: its predicted time, in any unit; teaches: students learn from it;
    waits_for: the positions of the trials whose results it needs, which wait for none themselves.
    """

    task: Hashable
    length: float
    teaches: bool = False
    waits_for: tuple[int, ...] = ()


def results_first(trials: Sequence[OrderedTrial], slots: int, lead: float = LEAD) -> list[int]:
    """The positions of the trials in the order in which they are given out to so many places, at least one.

    The task with the least work left comes first, and within a task teachers, then the cheapest trial; equal ones keep
    their order. From `lead` times its length, with that of a student that waits for it, before the end a trial goes
    before all others; the end is the mean load of a place. So the last trials are given out longest first, as list
    scheduling does to end early (Graham 1969).
    """
    slots = max(1, slots)
    students: list[list[int]] = [[] for _ in trials]
    for position, trial in enumerate(trials):
        for teacher in trial.waits_for:
            students[teacher].append(position)
    # From the start of a trial to the end of all that waits for it.
    chains = [t.length + max((trials[s].length for s in students[i]), default=0.0) for i, t in enumerate(trials)]
    end = max(sum(trial.length for trial in trials) / slots, max(chains, default=0.0))
    ranks = {position: rank for rank, position in enumerate(_by_task(trials))}

    waiting = [len(trial.waits_for) for trial in trials]
    by_rank: list[tuple[int, int]] = []  # two queues of the same trials: what comes next, and what must not wait longer
    by_start: list[tuple[float, int, int]] = []

    def make_ready(position: int) -> None:
        heapq.heappush(by_rank, (ranks[position], position))
        heapq.heappush(by_start, (end - lead * chains[position], ranks[position], position))

    def next_ready(now: float) -> int | None:
        while by_start and by_start[0][-1] in given:
            heapq.heappop(by_start)
        while by_rank and by_rank[0][-1] in given:
            heapq.heappop(by_rank)
        if not by_rank:
            return None
        urgent = by_start[0][0] <= now
        return by_start[0][-1] if urgent else by_rank[0][-1]

    for position, count in enumerate(waiting):
        if count == 0:
            make_ready(position)
    given: dict[int, None] = {}
    running: list[tuple[float, int]] = []
    now = 0.0
    while len(given) < len(trials):
        chosen = next_ready(now) if len(running) < slots else None
        if chosen is not None:
            given[chosen] = None
            heapq.heappush(running, (now + trials[chosen].length, chosen))
            continue
        now, ended = heapq.heappop(running)
        for student in students[ended]:
            waiting[student] -= 1
            if waiting[student] == 0:
                make_ready(student)
    return list(given)


def _by_task(trials: Sequence[OrderedTrial]) -> Iterator[int]:
    """The positions of the trials, task by task."""
    work: dict[Hashable, float] = {}
    for trial in trials:
        work[trial.task] = work.get(trial.task, 0.0) + trial.length
    numbers = {task: number for number, task in enumerate(sorted(work, key=work.__getitem__))}
    yield from sorted(
        range(len(trials)), key=lambda i: (numbers[trials[i].task], not trials[i].teaches, trials[i].length)
    )
