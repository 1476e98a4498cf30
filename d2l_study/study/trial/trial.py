"""One trial: replicates of one configuration, trained in lockstep. Whoever trains them also commits them.

This file knows the ledger, not Ray. A worker of Ray Tune runs `run_trial`, and so can a debugger.
"""

from __future__ import annotations

import dataclasses
import io
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
from d2l_study.study.ledger.timestamps import timestamp
from d2l_study.study.plan.precision import decided_precision
from d2l_study.study.space.keys import WITHOUT_WEIGHTS
from d2l_study.study.trial.replicates import trained_replicate
from d2l_study.study.trial.rerun_differences import replacement_columns
from d2l_study.study.trial.stages import FIT_FUNCTIONS, run_results
from d2l_study.study.trial.trial_request import TrialRequest

ReportCallback = Callable[[int, Mapping[int, Mapping[str, float]]], None]
"""Takes a point of a trial's curves: optimizer step, and replicate -> values by name."""

LOG_CHARACTERS = 4000
"""Of a traceback, its end, which a failure keeps."""


def run_trial(request: TrialRequest, report: ReportCallback | None = None) -> dict[int, str]:
    """Train, evaluate and commit the runs of a trial that are not committed yet.

    Returns replicate -> status, `done` or `failed`. An exception becomes the failure of its runs and is not raised:
    it would come again. Two kinds are raised, for the caller to act: out of memory, and a root of results that takes
    or gives nothing more. Runs that another study is training are waited for, and trained here if it ends without
    them.
    """
    folder = StudyFolder(open_storage(request.root, known=True), request.study)
    folder.ledger.write_config(request.config_id, {
        "stage": request.stage, "sections": request.sections, "base_seed": request.base_seed,
        "data_checksum": request.data_checksum, "teachers": request.teachers, "study": request.study,
    })  # fmt: skip
    if request.fresh:  # these runs are no other study's
        _train_or_fail(request, missing_runs(folder, request), folder, report)
        return run_statuses(folder, request)
    with Claims(folder.ledger, request.study) as claims:
        tried: set[int] = set()
        while left := [r for r in missing_runs(folder, request) if r not in tried]:
            claimed = claims.take(request.config_id, left)
            if not claimed:
                time.sleep(LOOK_SECONDS)
                continue
            missing = missing_runs(folder, request)  # somebody may have committed one before it was claimed
            _train_or_fail(request, [r for r in claimed if r in missing], folder, report)
            tried.update(claimed)
    return run_statuses(folder, request)


def missing_runs(folder: StudyFolder, request: TrialRequest) -> list[int]:
    """The replicates of a trial that are to be trained: not committed, or without the weights that it keeps."""
    with_weights = request.keep_weights == "all" and request.stage not in WITHOUT_WEIGHTS
    return [
        r for r in request.replicates
        if not folder.ledger.has_result(request.config_id, r, with_weights, request.fresh_of)
    ]  # fmt: skip


def _train_or_fail(
    request: TrialRequest, missing: list[int], folder: StudyFolder, report: ReportCallback | None
) -> None:
    """Train and commit runs. An exception becomes the failure of those that are not committed then."""
    try:
        _train(request, missing, folder, report)
    except Exception as error:
        if out_of_memory(error) or isinstance(error, ROOT_ERRORS):
            raise
        cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        failure = {"cause": cause.splitlines()[0] if cause else type(error).__name__,
                   "log": traceback.format_exc()[-LOG_CHARACTERS:], "kind": "exception", "at": timestamp(),
                   "attempt": request.attempt}  # fmt: skip
        for replicate in missing_runs(folder, request):
            if replicate in missing:
                folder.write_failure(request.config_id, replicate, failure)


def run_statuses(folder: StudyFolder, request: TrialRequest) -> dict[int, str]:
    """Replicate -> the status of its committed row; `failed` if it is not committed."""
    records = {r: folder.ledger.read(request.config_id, r, request.fresh_of) for r in request.replicates}
    return {r: record["row"]["status"] if record else "failed" for r, record in records.items()}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of the GPU, has run out."""
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _train(request: TrialRequest, replicates: list[int], folder: StudyFolder, report: ReportCallback | None) -> None:
    """Train and commit runs. What is done outlives this process, by commits and checkpoints."""
    ledger, identity = folder.ledger, request.config_id
    owner = request.fresh_of  # a checkpoint of another study is not fresh
    for replicate, row, files in compute_runs(request, replicates, folder, report, {
        "checkpoint": lambda replicate, state: ledger.save_checkpoint(identity, replicate, state, owner),
        "checkpoint_every": request.resources["checkpoint_every"],
        "resume": _checkpoints(ledger, identity, replicates, owner),
    }):  # fmt: skip
        record = ledger.read(identity, replicate)  # there is one if only its weights are missing, or by `--fresh`
        row |= {"attempts": request.attempt, **replacement_columns(row, record)}
        ours = record is None or record["row"].get("made_by") == request.study
        ledger.commit(identity, replicate, row, files, uuid.uuid4().hex[:8], None if ours else owner)
        folder.clear_failure(identity, replicate)
        ledger.drop_checkpoint(identity, replicate, owner)


def compute_runs(
    request: TrialRequest, replicates: list[int], folder: StudyFolder, report: ReportCallback | None = None,
    checkpoints: Mapping[str, Any] | None = None,
) -> Iterator[tuple[int, dict[str, Any], dict[str, bytes]]]:  # fmt: skip
    """Train and evaluate runs of a trial, and commit nothing. Yields replicate, row, and files by name, of each.

    checkpoints: the arguments `checkpoint`, `checkpoint_every` and `resume` of the fitting functions; without them
    training begins at the start. `UserError` if the data set is not the one that the trial is of.
    """
    if not replicates:
        return
    import torch

    from d2l_study.learning.precision import full_float32
    from d2l_study.learning.prediction import Compute

    torch.set_num_threads(request.resources["threads"])
    full_float32()
    device = request.resources["device"]
    if device == "auto":
        device = "cuda" if request.resources["gpus"] > 0 else "cpu"
    data = DATASETS[request.sections["data"]["dataset"]](**request.sections["data"])
    pool = _pool(data)
    expected = request.data_checksum
    if pool.checksum != expected:
        raise UserError(f"data set {pool.name}: checksum {pool.checksum} on this node; the study has {expected}")
    if request.resources["precision"] == "auto":  # rows then say which one was used
        precision = decided_precision(folder, pool.shape, device)
        request = dataclasses.replace(request, resources={**request.resources, "precision": precision})
    compute = Compute(device, request.resources["precision"], pack=request.resources.get("pack"))
    problems = [trained_replicate(request.sections, pool, r, request.base_seed) for r in replicates]
    options = {"compute": compute, "report": report, **(checkpoints or {})}
    fitted = FIT_FUNCTIONS[request.stage](request, problems, folder.ledger, options)
    for problem, result in zip(problems, fitted, strict=True):
        keep = request.keeps_weights or bool(folder.ledger.needed_by(request.config_id, result.replicate))
        yield result.replicate, *run_results(request, problem, result, compute.device, timestamp(), keep)


def _checkpoints(ledger: Ledger, config: str, replicates: list[int], owner: str | None = None) -> dict[int, bytes]:
    """The checkpoints that can be read. A run whose checkpoint is damaged, or of another version, begins anew."""
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


def failure_of_lost_run(request: TrialRequest, cause: str, log: str) -> dict[str, Any]:
    """The failure of a run whose worker was lost more often than the space allows."""
    return {
        "cause": cause,
        "log": log[-LOG_CHARACTERS:],
        "kind": "worker",
        "at": timestamp(),
        "attempt": request.attempt,
        "trial_id": trial_id(request.config_id),
    }
