"""One trial: replicates of one configuration, or of several that are packed, trained in lockstep. Whoever trains them
also commits them.

This file knows the ledger, not Ray. A worker of Ray Tune runs `run_trial`, and so can a debugger.
"""

from __future__ import annotations

import dataclasses
import io
import time
import traceback
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from d2l_study.data import DATASETS, Pool
from d2l_study.device_errors import device_failed, out_of_memory
from d2l_study.errors import ROOT_ERRORS, SlowStepsWarning, UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.study.ledger.claims import LOOK_SECONDS, Claims
from d2l_study.study.ledger.ledger import Ledger, trial_id
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.ledger.timestamps import timestamp
from d2l_study.study.plan.precision import decided_precision, keep_precision
from d2l_study.study.space.keys import WITHOUT_WEIGHTS
from d2l_study.study.trial.packed_trials import BAG_COUNTS, Part, can_be_packed, fit_packed
from d2l_study.study.trial.replicates import trained_replicate
from d2l_study.study.trial.rerun_differences import replacement_columns
from d2l_study.study.trial.stages import FIT_FUNCTIONS, run_results
from d2l_study.study.trial.trial_request import TrialRequest

if TYPE_CHECKING:
    from d2l_study.data import Replicate
    from d2l_study.learning.prediction import Compute
    from d2l_study.study.trial.stages import Fitted

ReportCallback = Callable[[int, Mapping[int, Mapping[str, float]]], None]
"""Takes a point of a trial's curves: optimizer step, and replicate -> values by name."""

PackedReportCallback = Callable[[int, int, Mapping[int, Mapping[str, float]]], None]
"""The same of several configurations; the number of the request comes first."""

WRITERS = 4
"""Threads of a trial that commit its runs. A commit waits for the disk some eight times."""

MOST_OF_GPU = 0.6
"""The most of a trial's part of a GPU that the instances of a data set may take, beside what training needs."""

LOG_CHARACTERS = 4000
"""Of a traceback, its end, which a failure keeps."""


def run_trial(request: TrialRequest, report: ReportCallback | None = None) -> dict[int, str]:
    """`run_packed_trial` of one configuration. Returns replicate -> status, `done` or `failed`."""
    return run_packed_trial([request], _of_one(report))[0]


def _of_one(report: ReportCallback | None) -> PackedReportCallback | None:
    """The callback of a trial of one configuration, as that of a packed one."""
    return None if report is None else lambda number, step, values: report(step, values)


def run_packed_trial(
    requests: Sequence[TrialRequest], report: PackedReportCallback | None = None,
    committed: Callable[[int], None] | None = None,
) -> list[dict[int, str]]:  # fmt: skip
    """Train, evaluate and commit the runs of a trial that are not committed yet.

    requests: of its configurations, which are trained together if they can be packed; committed: called with the number
    of a request once all its runs are committed, if that is before the end.

    Returns replicate -> status, `done` or `failed`, of each request. An exception becomes the failure of its runs and
    is not raised: it would come again. Three kinds are raised, for the caller to act: out of memory, a GPU that fails
    whatever this process does next, and a root of results that takes or gives nothing more. Runs that another study is
    training are waited for, and trained here if it ends without them.
    """
    first = requests[0]
    folder = StudyFolder(open_storage(first.root, known=True), first.study)
    for request in requests:
        folder.ledger.write_config(request.config_id, {
            "stage": request.stage, "sections": request.sections, "base_seed": request.base_seed,
            "data_checksum": request.data_checksum, "teachers": request.teachers, "study": request.study,
        })  # fmt: skip
    keep_precision(folder, first.resources["precision"])
    trial = _Trial(requests, folder, report, committed)
    if first.fresh:  # these runs are no other study's
        trial.train_or_fail(trial.missing())
        return trial.statuses()
    with Claims(folder.ledger, first.study) as claims:
        tried: set[tuple[int, int]] = set()
        while left := _without(trial.missing(), tried):
            claimed = {i: claims.take(requests[i].config_id, replicates) for i, replicates in left.items()}
            if not any(claimed.values()):
                time.sleep(LOOK_SECONDS)
                continue
            missing = trial.missing()  # somebody may have committed one before it was claimed
            trial.train_or_fail({i: [r for r in rs if r in missing.get(i, ())] for i, rs in claimed.items()})
            tried.update((i, r) for i, replicates in claimed.items() for r in replicates)
            claims.release()  # of two workers, each would wait for ever for runs that failed in the other
    return trial.statuses()


Runs = Mapping[int, Sequence[int]]
"""Number of a request -> replicates."""


def _without(runs: Runs, others: set[tuple[int, int]]) -> dict[int, list[int]]:
    """Runs that are not among others, of the requests that have any."""
    left = {i: [r for r in replicates if (i, r) not in others] for i, replicates in runs.items()}
    return {i: replicates for i, replicates in left.items() if replicates}


def missing_runs(folder: StudyFolder, request: TrialRequest) -> list[int]:
    """The replicates of a trial that are to be trained: not committed, or without the weights that it keeps."""
    with_weights = request.keep_weights == "all" and request.stage not in WITHOUT_WEIGHTS
    return [
        r for r in request.replicates
        if not folder.ledger.has_result(request.config_id, r, with_weights, request.made_by, request.fresh_of)
    ]  # fmt: skip


class _Trial:
    """The requests of a trial in a worker. Its methods train some of their runs."""

    def __init__(
        self, requests: Sequence[TrialRequest], folder: StudyFolder, report: PackedReportCallback | None,
        committed: Callable[[int], None] | None,
    ) -> None:  # fmt: skip
        self.requests, self.folder, self._report, self._committed = requests, folder, report, committed

    def missing(self) -> dict[int, list[int]]:
        """The runs that are to be trained, of the requests that have any."""
        found = {i: missing_runs(self.folder, request) for i, request in enumerate(self.requests)}
        return {i: replicates for i, replicates in found.items() if replicates}

    def statuses(self) -> list[dict[int, str]]:
        """Of each request: replicate -> the status of its committed row; `failed` if it is not committed."""
        ledger, found = self.folder.ledger, []
        for request in self.requests:
            records = {r: ledger.read(request.config_id, r, request.fresh_of) for r in request.replicates}
            found.append({r: record["row"]["status"] if record else "failed" for r, record in records.items()})
        return found

    def train_or_fail(self, runs: Runs) -> None:
        """Train and commit runs. An exception becomes the failure of those that are not committed then.

        Whose fault an exception of several requests is, is not known: what is left of each is trained alone.
        """
        runs = {i: replicates for i, replicates in runs.items() if replicates}
        try:
            self._train(runs)
            return
        except Exception as error:
            if out_of_memory(error) or device_failed(error) or isinstance(error, ROOT_ERRORS):
                raise
            cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            failure = {
                "cause": cause.splitlines()[0] if cause else type(error).__name__,
                "log": traceback.format_exc()[-LOG_CHARACTERS:],
                "kind": "exception",
                "at": timestamp(),
            }
        missing = self.missing()
        left = {i: [r for r in replicates if r in missing.get(i, ())] for i, replicates in runs.items()}
        if len(runs) > 1:
            for i, replicates in left.items():
                self.train_or_fail({i: replicates})
            return
        for i, replicates in left.items():
            request = self.requests[i]
            for replicate in replicates:
                self.folder.write_failure(request.config_id, replicate, failure | {"attempt": request.attempt})

    def _train(self, runs: Runs) -> None:
        """Train and commit runs. What is done outlives this process, by commits and checkpoints.

        Files are written by threads, so that the next run is evaluated while the disk is waited for.
        """
        left = {i: set(replicates) for i, replicates in self.missing().items()}
        with ThreadPoolExecutor(WRITERS) as writers:
            written: deque[Future[tuple[int, int]]] = deque()

            def settle(most: int) -> None:
                """Wait until at most so many runs are still being written."""
                while len(written) > most:
                    i, replicate = written.popleft().result()
                    left[i].discard(replicate)
                    if self._committed is not None and not left[i]:
                        self._committed(i)

            for i, replicate, row, files in _computed(self.requests, runs, self.folder, self._report, resumable=True):
                written.append(writers.submit(self._commit, i, replicate, row, files))
                settle(2 * WRITERS)
            settle(0)

    def _commit(self, i: int, replicate: int, row: dict[str, Any], files: Mapping[str, bytes]) -> tuple[int, int]:
        """Commit a run; returns which one it was."""
        ledger, request = self.folder.ledger, self.requests[i]
        identity, owner = request.config_id, request.made_by  # a checkpoint of another study is not fresh
        record = ledger.read(identity, replicate)  # there is one if only its weights are missing, or by `--fresh`
        row |= {"attempts": request.attempt, **replacement_columns(row, record)}
        beside = owner or self._replaced(request, replicate)
        ours = record is None or record["row"].get("made_by") == request.study
        ledger.commit(identity, replicate, row, files, uuid.uuid4().hex[:8], None if ours else beside)
        self.folder.clear_failure(identity, replicate)
        ledger.drop_checkpoint(identity, replicate, owner)
        return i, replicate

    def _replaced(self, request: TrialRequest, replicate: int) -> str | None:
        """The study, if it has a record of its own of a run, which is trained once more since its weights are gone."""
        if request.fresh_of is None:
            return None
        record = self.folder.ledger.read(request.config_id, replicate, request.fresh_of)
        return request.study if record is not None and record["row"].get("made_by") == request.study else None


def compute_runs(
    request: TrialRequest, replicates: Sequence[int], folder: StudyFolder, report: ReportCallback | None = None
) -> Iterator[tuple[int, dict[str, Any], dict[str, bytes]]]:
    """Train from the start and evaluate runs of one configuration, and commit nothing. Yields replicate, row, and files
    by name, of each. `UserError` if the data set is not the one that the request is of."""
    for _, replicate, row, files in _computed([request], {0: replicates}, folder, _of_one(report)):
        yield replicate, row, files


def _computed(
    requests: Sequence[TrialRequest], runs: Runs, folder: StudyFolder, report: PackedReportCallback | None,
    resumable: bool = False,
) -> Iterator[tuple[int, int, dict[str, Any], dict[str, bytes]]]:  # fmt: skip
    """Train and evaluate runs. Yields the number of the request, replicate, row, and files by name, of each.

    resumable: whether they save checkpoints, and go on from those that are there."""
    runs = {i: replicates for i, replicates in runs.items() if replicates}
    if not runs:
        return
    import torch

    from d2l_study.learning.precision import full_float32

    # What requests of one trial have in common is read from the first.
    first = requests[next(iter(runs))]
    torch.set_num_threads(first.resources["threads"])
    full_float32()
    pool = _pool(_data_of_pool(first))
    if pool.checksum != first.data_checksum:
        raise UserError(
            f"data set {pool.name}: checksum {pool.checksum} on this node; the study has {first.data_checksum}"
        )
    compute = _compute(first, pool, folder)
    problems = {
        i: [trained_replicate(requests[i].sections, pool, r, requests[i].base_seed) for r in replicates]
        for i, replicates in runs.items()
    }

    def options(i: int) -> dict[str, Any]:
        found = {"compute": compute, "report": None if report is None else partial(report, i)}
        return found | (_checkpoint_options(requests[i], runs[i], folder.ledger) if resumable else {})

    for together in _trained_together(requests, problems, compute):
        fitted: Sequence[Sequence[Fitted]]
        if len(together) > 1:
            fitted = fit_packed([Part(_teacher(requests[i]), problems[i], options(i)) for i in together], compute)
        else:
            (i,) = together
            fitted = [FIT_FUNCTIONS[requests[i].stage](requests[i], problems[i], folder.ledger, options(i))]
        for i, results in zip(together, fitted, strict=True):
            # Rows say which precision was used.
            request = dataclasses.replace(
                requests[i], resources={**requests[i].resources, "precision": compute.precision}
            )
            for problem, result in zip(problems[i], results, strict=True):
                keep = request.keeps_weights or bool(folder.ledger.needed_by(request.config_id, result.replicate))
                yield i, result.replicate, *run_results(request, problem, result, compute.device, timestamp(), keep)


def _compute(request: TrialRequest, pool: Pool, folder: StudyFolder) -> Compute:
    """Where and how a trial computes, with what is `auto` decided."""
    from d2l_study.learning.prediction import Compute

    resources = request.resources
    device = resources["device"]
    if device == "auto":
        device = "cuda" if resources["gpus"] > 0 else "cpu"
    precision = resources["precision"]
    if precision == "auto":
        precision = decided_precision(folder, pool.shape, device)
    packed = None
    if device.startswith("cuda") and (reason := why_no_stack(pool, device, resources["gpus"])) is not None:
        warnings.warn(f"runs are not stacked: {reason}", SlowStepsWarning, stacklevel=2)
        packed = False
    return Compute(device, precision, packed, resources.get("pack"), request.halvings)


def why_no_stack(pool: Pool, device: str, gpus: float) -> str | None:
    """Why the instances of a pool cannot lie on the GPU, as stacks need it; None if they can. gpus: the part of it that
    the trial has. By turns a GPU holds the instances of one step."""
    import torch

    own = torch.cuda.get_device_properties(device).total_memory * min(1.0, gpus or 1.0)
    if pool.instances.nbytes <= MOST_OF_GPU * own:
        return None
    gib = 2**30
    return (
        f"the instances of {pool.name} take {pool.instances.nbytes / gib:.1f} GiB, and a trial has {own / gib:.1f} GiB "
        "of the GPU (resources.gpus=1 gives each trial a whole one)"
    )


def _trained_together(
    requests: Sequence[TrialRequest], problems: Mapping[int, Sequence[Replicate]], compute: Compute
) -> list[list[int]]:
    """The numbers of the requests in sets, each of which is trained together."""
    if len(problems) == 1:
        return [[*problems]]
    packed = [i for i, own in problems.items() if can_be_packed(_teacher(requests[i]), own, compute)]
    return [*([packed] if packed else []), *([i] for i in problems if i not in packed)]


def _teacher(request: TrialRequest) -> TeacherConfig:
    return TeacherConfig(**request.sections["teacher"])


def _checkpoint_options(request: TrialRequest, replicates: Sequence[int], ledger: Ledger) -> dict[str, Any]:
    """The arguments of fitting functions by which runs are saved and go on."""
    identity, owner = request.config_id, request.made_by
    return {
        "checkpoint": lambda replicate, state: ledger.save_checkpoint(identity, replicate, state, owner),
        "checkpoint_every": request.resources["checkpoint_every"],
        "resume": _checkpoints(ledger, identity, replicates, owner),
    }


def _checkpoints(ledger: Ledger, config: str, replicates: Sequence[int], owner: str | None = None) -> dict[int, bytes]:
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


def _data_of_pool(request: TrialRequest) -> Any:
    """The data set of a request without the counts of bags: requests that differ in these alone share a pool."""
    section = {name: value for name, value in request.sections["data"].items() if name not in BAG_COUNTS}
    return DATASETS[section["dataset"]](**section)


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
