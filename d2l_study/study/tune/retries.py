"""Trials that were lost: why, and whether to try again.

A lost worker or node is a retry, as often as the space allows (`resources.retries`, counted by us for each command:
Tune counts in its own way). A trial that ran out of memory is tried again in two halves. An exception of the training
itself, or NaN, would come again and is no loss (`trial.run_trial` keeps it as a failure). A root that takes or
gives nothing more ends the study.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from d2l_study.errors import ROOT_ERRORS
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.trial.trial import failure_of_worker, missing_runs, now
from d2l_study.study.trial.trial_request import TrialRequest
from d2l_study.study.tune.node_watch import LOST

WORKER, MEMORY, STORAGE, DRIVER = "worker", "memory", "storage", "driver"
ROOT_NAMES = tuple(error.__name__ for error in ROOT_ERRORS)


@dataclass(frozen=True)
class Loss:
    """Why a trial did not come to its end: `kind` is worker, memory, storage or driver (the node that the driver itself
    is on: nothing can run any more); `cause` one line, `log` the report."""

    kind: str
    cause: str
    log: str


def loss_of(log: str) -> Loss:
    """What Ray's long report of a failed trial means."""
    low = log.lower()
    lines = [line.strip() for line in log.strip().splitlines() if line.strip()]
    last = lines[-1] if lines else "the worker was lost"
    if any(name in log for name in ROOT_NAMES):
        said = next((line for line in reversed(lines) if any(f"{name}: " in line for name in ROOT_NAMES)), last)
        said = re.sub(rf"^.*(?:{'|'.join(ROOT_NAMES)}): (?:\[Errno \w+\] )?|: '[^']*'$", "", said)
        return Loss(STORAGE, said, log)
    if "outofmemory" in low or "out of memory" in low or "MemoryError" in log:
        return Loss(MEMORY, "the worker ran out of memory", log)
    if "its owner has died" in low:  # the driver owns all trials, and hears this: its node has gone, and not it
        return Loss(DRIVER, LOST, log)
    if "nodedied" in low or "node died" in low or "node is dead" in low or "node was dead" in low:
        return Loss(WORKER, "the worker's node was lost", log)
    if "actordied" in low or "died unexpectedly" in low or "actor died" in low or "worker died" in low:
        return Loss(WORKER, "the worker process was lost", log)
    if "actorunavailable" in low or "temporarily unavailable" in low:  # a node that went, before Ray is sure of it
        return Loss(WORKER, "the connection to the worker or its node was lost", log)
    return Loss(WORKER, last, log)


def next_attempt(order: TrialRequest, loss: Loss, folder: StudyFolder) -> list[TrialRequest]:
    """Count a lost attempt, and return what is to be run again: nothing after the last one, whose runs are then marked
    as failed; two halves after it ran out of memory with several replicates. Committed runs are not run again."""
    left = missing_runs(folder, order)
    for replicate in left:
        attempt = {"attempt": order.attempt, "cause": loss.cause, "kind": loss.kind, "at": now(),
                   "replicates": list(order.replicates)}  # fmt: skip
        folder.write_lost_attempt(order.config_id, replicate, attempt)
    if order.attempt > order.resources["retries"]:
        tried = f" ({order.attempt} attempts)" if order.attempt > 1 else ""
        for replicate in left:
            folder.write_failure(order.config_id, replicate, failure_of_worker(order, loss.cause + tried, loss.log))
        return []
    return [replace(order, replicates=piece, attempt=order.attempt + 1) for piece in _pieces(left, loss.kind)]


def _pieces(replicates: Sequence[int], kind: str) -> list[tuple[int, ...]]:
    if not replicates:
        return []
    half = (len(replicates) + 1) // 2 if kind == MEMORY else len(replicates)
    return [tuple(replicates[i : i + half]) for i in range(0, len(replicates), half)]
