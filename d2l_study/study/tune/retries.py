"""Trials that were lost: why, and what is tried again.

A trial whose worker, GPU or node was lost is tried again, as often as the space allows (`resources.retries`; we count
for each command, since Tune counts in its own way). A trial that ran out of memory is tried again in two halves, whose
stacks are half as large; a packed one in two halves after any loss. An exception of the training itself, or NaN, would
come again: it is a failure (`trial.run_packed_trial`), and the trial is not lost. A root that takes or gives nothing
more ends the study.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from d2l_study.device_errors import device_line, says_out_of_memory
from d2l_study.errors import ROOT_ERRORS
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.ledger.timestamps import timestamp
from d2l_study.study.trial.packed_trials import Trial
from d2l_study.study.trial.trial import failure_of_lost_run, missing_runs
from d2l_study.study.trial.trial_request import TrialRequest
from d2l_study.study.tune.node_watch import LOST

Item = TypeVar("Item")

WORKER, MEMORY, STORAGE, DRIVER = "worker", "memory", "storage", "driver"
ROOT_ERROR_NAMES = tuple(error.__name__ for error in ROOT_ERRORS)


@dataclass(frozen=True)
class LostTrial:
    """Why a trial did not come to its end. kind: worker, memory, storage (the root of results), or driver (the node
    that the driver itself is on: nothing can run any more); cause: one line; log: Ray's report."""

    kind: str
    cause: str
    log: str


def lost_trial(log: str) -> LostTrial:
    """Read from Ray's report of a failed trial why it was lost."""
    low = log.lower()
    lines = [line.strip() for line in log.strip().splitlines() if line.strip()]
    last = lines[-1] if lines else "the worker was lost"
    if any(name in log for name in ROOT_ERROR_NAMES):
        cause = next((x for x in reversed(lines) if any(f"{name}: " in x for name in ROOT_ERROR_NAMES)), last)
        cause = re.sub(rf"^.*(?:{'|'.join(ROOT_ERROR_NAMES)}): (?:\[Errno \w+\] )?|: '[^']*'$", "", cause)
        return LostTrial(STORAGE, cause, log)
    if says_out_of_memory(log):
        return LostTrial(MEMORY, "the worker ran out of memory", log)
    if "its owner has died" in low:  # Ray takes the driver, which owns all trials, for dead: the driver's node is lost
        return LostTrial(DRIVER, LOST, log)
    if "nodedied" in low or "node died" in low or "node is dead" in low or "node was dead" in low:
        return LostTrial(WORKER, "the worker's node was lost", log)
    if "actordied" in low or "died unexpectedly" in low or "actor died" in low or "worker died" in low:
        return LostTrial(WORKER, "the worker process was lost", log)
    if "actorunavailable" in low or "temporarily unavailable" in low:  # a node that went, before Ray is sure of it
        return LostTrial(WORKER, "the connection to the worker or its node was lost", log)
    if (said := device_line(log)) is not None:
        return LostTrial(WORKER, f"the GPU failed: {said}", log)
    return LostTrial(WORKER, last, log)


def retry(trial: Trial, lost: LostTrial, folder: StudyFolder) -> list[Trial]:
    """Count a lost attempt of each run, and return what to run again: the runs that are not committed.

    Several runs of one configuration that ran out of memory together come in two halves, and several configurations
    whatever happened: one of them may be the cause. At the last attempt that is allowed each configuration is a trial
    of its own. After it nothing is run again: the runs are marked as failed.
    """
    again: list[TrialRequest] = []
    for request in trial:
        left = missing_runs(folder, request)
        for replicate in left:
            attempt = {"attempt": request.attempt, "cause": lost.cause, "kind": lost.kind, "at": timestamp(),
                       "replicates": list(request.replicates)}  # fmt: skip
            folder.write_lost_attempt(request.config_id, replicate, attempt)
        if request.attempt > request.resources["retries"]:
            notes = [f"{request.attempt} attempts"] if request.attempt > 1 else []
            if lost.kind == MEMORY and (request.resources.get("gpus") or request.resources.get("pack")):
                notes.append("a smaller resources.pack has fewer runs in memory together")
            tried = f" ({'; '.join(notes)})" if notes else ""
            for replicate in left:
                failure = failure_of_lost_run(request, lost.cause + tried, lost.log)
                folder.write_failure(request.config_id, replicate, failure)
        elif left:
            halvings = request.halvings + (lost.kind == MEMORY)
            again.append(replace(request, replicates=tuple(left), attempt=request.attempt + 1, halvings=halvings))
    if len(trial) == 1:
        return [(piece,) for request in again for piece in _pieces(request, lost.kind)]
    if any(request.attempt > request.resources["retries"] for request in again):
        return [(request,) for request in again]
    return [tuple(half) for half in _halves(again)]


def _pieces(request: TrialRequest, kind: str) -> list[TrialRequest]:
    halves = _halves(request.replicates) if kind == MEMORY else [request.replicates]
    return [replace(request, replicates=tuple(half)) for half in halves]


def _halves(items: Sequence[Item]) -> list[Sequence[Item]]:
    """The items in two halves; one or none that is empty is left out."""
    middle = (len(items) + 1) // 2
    return [half for half in (items[:middle], items[middle:]) if half]
