"""One trial: the missing replicates of one configuration, trained in lockstep and committed by whoever trained them.

Knows the ledger, not Ray: `run_trial` is what a Tune worker runs, and what a debugger can step through.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import math
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from d2l_study.data import DATASETS, Pool
from d2l_study.errors import ROOT_ERRORS, UserError
from d2l_study.study.ledger.claims import LOOK_SECONDS, Claims
from d2l_study.study.ledger.ledger import Ledger, trial_id
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.precision import decided_precision
from d2l_study.study.space.keys import WITHOUT_WEIGHTS
from d2l_study.study.trial.stages import FITS, run_results
from d2l_study.study.trial.trial_request import TrialRequest

Report = Callable[[int, Mapping[int, Mapping[str, float]]], None]

LOG_TAIL = 4000
"""Characters of a traceback that a failure keeps."""


def run_trial(order: TrialRequest, report: Report | None = None) -> dict[int, str]:
    """Train, evaluate and commit the order's runs that are not committed yet.

    Returns each run's status: `done`, or `failed`. An exception is kept as the failure of its runs and not raised:
    it would come again. Out of memory and a root that takes or gives nothing more are raised, for the caller to act.
    Runs that another study is training are waited for, and trained here if it ends without them.
    """
    folder = StudyFolder(open_storage(order.root, known=True), order.study)
    folder.ledger.write_config(order.config_id, {
        "stage": order.stage, "sections": order.sections, "base_seed": order.base_seed,
        "data_checksum": order.checksum, "teachers": order.teachers, "study": order.study,
    })  # fmt: skip
    if order.fresh:  # nobody else's work
        _try(order, missing_runs(folder, order), folder, report)
        return run_statuses(folder, order)
    with Claims(folder.ledger, order.study) as claims:
        tried: set[int] = set()
        while left := [r for r in missing_runs(folder, order) if r not in tried]:
            mine = claims.take(order.config_id, left)
            if not mine:
                time.sleep(LOOK_SECONDS)
                continue
            still = missing_runs(folder, order)  # somebody may have committed one between the look and the claim
            _try(order, [r for r in mine if r in still], folder, report)
            tried.update(mine)
    return run_statuses(folder, order)


def missing_runs(folder: StudyFolder, order: TrialRequest) -> list[int]:
    """The replicates of an order that are to be trained: not committed, or without the weights that it keeps."""
    with_weights = order.keep_weights == "all" and order.stage not in WITHOUT_WEIGHTS
    return [r for r in order.replicates if not folder.ledger.serves(order.config_id, r, with_weights, order.fresh_of)]


def _try(order: TrialRequest, missing: list[int], folder: StudyFolder, report: Report | None) -> None:
    """Train and commit runs; an exception of theirs becomes their failure."""
    try:
        _train(order, missing, folder, report)
    except Exception as error:
        if out_of_memory(error) or isinstance(error, ROOT_ERRORS):
            raise
        cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        failure = {"cause": cause.splitlines()[0] if cause else type(error).__name__,
                   "log": traceback.format_exc()[-LOG_TAIL:], "kind": "exception", "at": now(),
                   "attempt": order.attempt}  # fmt: skip
        for replicate in missing_runs(folder, order):
            if replicate in missing:
                folder.write_failure(order.config_id, replicate, failure)


def run_statuses(folder: StudyFolder, order: TrialRequest) -> dict[int, str]:
    """The status of each of the order's runs: that of its committed row, else `failed`."""
    records = {r: folder.ledger.read(order.config_id, r, order.fresh_of) for r in order.replicates}
    return {r: record["row"]["status"] if record else "failed" for r, record in records.items()}


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _train(order: TrialRequest, replicates: list[int], folder: StudyFolder, report: Report | None) -> None:
    """Train and commit; every finished step of it outlives this process, by commit or by checkpoint."""
    ledger, identity = folder.ledger, order.config_id
    owner = order.fresh_of  # a checkpoint of another study is not fresh
    for replicate, row, files in compute_runs(order, replicates, folder, report, {
        "checkpoint": lambda replicate, state: ledger.save_checkpoint(identity, replicate, state, owner),
        "checkpoint_every": order.resources["checkpoint_every"],
        "resume": _checkpoints(ledger, identity, replicates, owner),
    }):  # fmt: skip
        before = ledger.read(identity, replicate)  # made again for its weights, or because of `--fresh`
        row |= {"attempts": order.attempt, **difference(row, before)}
        mine = before is None or before["row"].get("made_by") == order.study
        ledger.commit(identity, replicate, row, files, uuid.uuid4().hex[:8], None if mine else owner)
        folder.clear_failure(identity, replicate)
        ledger.drop_checkpoint(identity, replicate, owner)


def compute_runs(
    order: TrialRequest, replicates: list[int], folder: StudyFolder, report: Report | None = None,
    checkpoints: Mapping[str, Any] | None = None,
) -> Iterator[tuple[int, dict[str, Any], dict[str, bytes]]]:  # fmt: skip
    """Train and evaluate runs of an order, wherever they are committed: replicate, row and files of each.

    checkpoints: `checkpoint`, `checkpoint_every` and `resume` of the fitting functions; without it, from the start.
    """
    if not replicates:
        return
    import torch

    from d2l_study.learning.precision import full_float32
    from d2l_study.learning.prediction import Compute

    torch.set_num_threads(order.resources["threads"])
    full_float32()
    device = order.resources["device"]
    if device == "auto":
        device = "cuda" if order.resources["gpus"] > 0 else "cpu"
    data = DATASETS[order.sections["data"]["dataset"]](**order.sections["data"])
    pool = _pool(data)
    if pool.checksum != order.checksum:
        raise UserError(f"data set {pool.name}: checksum {pool.checksum} on this node; the study has {order.checksum}")
    if order.resources["precision"] == "auto":  # from here on the one that is used, which rows then say
        precision = decided_precision(folder, pool.shape, device)
        order = dataclasses.replace(order, resources={**order.resources, "precision": precision})
    compute = Compute(device, order.resources["precision"], pack=order.resources.get("pack"))
    problems = [data.replicate(pool, r, order.base_seed) for r in replicates]
    how = {"compute": compute, "report": report, **(checkpoints or {})}
    fitted = FITS[order.stage](order, problems, folder.ledger, how)
    for problem, result in zip(problems, fitted, strict=True):
        keep = order.keeps_weights or bool(folder.ledger.needed_by(order.config_id, result.replicate))
        yield result.replicate, *run_results(order, problem, result, compute.device, now(), keep)


def difference(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of a run made again: whose result there was, and the largest difference between the metrics of the two."""
    if before is None:
        return {}
    return {"replaces": before["row"].get("made_by"), "replaces_difference": largest_difference(row, before["row"])}


def largest_difference(row: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest absolute difference between the metrics of two rows of one run; infinite if one has a metric (or a
    status) that the other has not."""
    if row["status"] != other["status"]:
        return math.inf
    largest = 0.0
    for name in row.keys() | other.keys():
        if not name.endswith(METRICS):
            continue
        values = [None if v is None or math.isnan(v) else float(v) for v in (row.get(name), other.get(name))]
        if values[0] is None or values[1] is None:
            largest = max(largest, 0.0 if values[0] is values[1] else math.inf)
        else:
            largest = max(largest, abs(values[0] - values[1]))
    return largest


METRICS = ("_auc", "_nll", "_brier", "_accuracy", "_precision", "_recall", "_f1", "_ap", "best_step", "steps_run")
"""Endings of the columns that say what a run found, and not how long it took or where."""


def _checkpoints(ledger: Ledger, config: str, replicates: list[int], owner: str | None = None) -> dict[int, bytes]:
    """The checkpoints that can be read; a damaged one, or one of another version, costs its run a new start."""
    import torch

    found = {}
    for replicate in replicates:
        state = ledger.load_checkpoint(config, replicate, owner)
        if state is None:
            continue
        try:
            torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)["step"]
        except Exception:  # torch, pickle and zipfile each raise their own
            ledger.drop_checkpoint(config, replicate, owner)
        else:
            found[replicate] = state
    return found


@lru_cache(maxsize=2)
def _pool(data: Any) -> Pool:
    """The data set's pool; a worker that runs many trials maps it once."""
    return data.load_pool()


def failure_of_worker(order: TrialRequest, cause: str, log: str) -> dict[str, Any]:
    """The failure record of a run whose worker was lost more often than the space allows."""
    return {
        "cause": cause,
        "log": log[-LOG_TAIL:],
        "kind": "worker",
        "at": now(),
        "attempt": order.attempt,
        "trial_id": trial_id(order.config_id),
    }


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
