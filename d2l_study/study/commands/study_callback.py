"""What the driver does at the events of trials: show them, and write them to MLflow."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from d2l_study.errors import ROOT_ERRORS, UnreadableError
from d2l_study.study.commands.configuration_artifacts import artifacts_of
from d2l_study.study.commands.prepare_study import PreparedStudy
from d2l_study.study.commands.search_trials import typical_work
from d2l_study.study.commands.trial_requests import is_part_of, kind_of, trial_key
from d2l_study.study.ledger.best_weights import BEST, BestWeights
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.trial.packed_trials import Trial
from d2l_study.study.trial.trial_request import TrialRequest
from d2l_study.study.tune import retries

if TYPE_CHECKING:
    from d2l_study.study.commands.progress_display import ProgressDisplay
    from d2l_study.study.ledger.lease import Lease
    from d2l_study.study.mlflow.tracker import Tracker


class StudyCallback:
    """The `TrialCallback` of a study: shows its trials, and writes their configurations to MLflow.

    A configuration is finished when the last of its trials has ended. held: the study's lease, which ends the study.
    """

    def __init__(
        self, study: PreparedStudy, entries: Sequence[dict[str, Any]], requests: Sequence[TrialRequest],
        tracker: Tracker, display: ProgressDisplay, tags: Mapping[str, str], held: Lease,
    ) -> None:  # fmt: skip
        self.folder, self.tracker, self.display, self.tags = study.folder, tracker, display, tags
        self._held, self._fail_fast = held, study.options.fail_fast
        self._entries = {entry["config_id"]: entry for entry in entries}
        self._open_trials: dict[str, int] = {}
        self._replicates: dict[str, list[int]] = {}  # of all trials of a configuration
        self._begun: set[str] = set()
        self._reported: set[tuple[str, int]] = set()  # configuration and replicate
        self._typical_work = typical_work(study) if study.search is not None else 0.0
        self._weights = BestWeights(self.folder) if study.space.keep_weights == BEST else None
        self._expect(requests)

    def _expect(self, requests: Sequence[TrialRequest]) -> None:
        for request in requests:
            self._open_trials[request.config_id] = self._open_trials.get(request.config_id, 0) + 1
            self._replicates.setdefault(request.config_id, []).extend(request.replicates)

    def add_trials(self, entries: Sequence[dict[str, Any]], requests: Sequence[TrialRequest]) -> None:
        """A search has asked for more. entries: those that are new in the plan; requests: for what is to be trained."""
        self._entries |= {entry["config_id"]: entry for entry in entries if entry["config_id"] not in self._entries}
        self._expect(requests)
        for request in requests:
            self.display.add_trial(trial_key(request), self._typical_work, kind_of(request))
        trained = {request.config_id for request in requests}
        for entry in entries:
            if entry["config_id"] not in trained and entry["config_id"] not in self._replicates:
                rows = self.folder.rows_of(entry)  # it is committed already
                artifacts = artifacts_of(self.folder, entry["config_id"], rows)
                self.tracker.publish(self.folder, entry, rows, self.tags, artifacts)

    @property
    def open_trials(self) -> int:
        """How many trials have not ended."""
        return sum(self._open_trials.values())

    def on_trial_start(self, request: TrialRequest) -> None:
        self.display.trial_started(trial_key(request), request)
        if request.config_id not in self._begun:
            self._begun.add(request.config_id)
            self._begin(request)

    def _begin(self, request: TrialRequest) -> None:
        from d2l_study.study.mlflow.configuration_page import origin_tags

        entry = self._entries[request.config_id]
        self.tracker.begin(request.config_id, method=entry["method"], stage=entry["stage"], params=entry["values"],
                           tags={**self.tags, **origin_tags(entry)}, varied=entry["varied"],
                           replicates=entry["replicates"])  # fmt: skip
        if len(self._replicates.get(request.config_id, ())) < len(entry["replicates"]):
            self.tracker.mark_incomplete(request.config_id)  # the others were there, and report nothing

    def on_trial_report(self, request: TrialRequest, step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        aucs = [v["val_bag_auc"] for v in values.values() if "val_bag_auc" in v]
        self.display.trial_reported(trial_key(request), step, sum(aucs) / len(aucs) if aucs else math.nan)
        self.display.note = f"MLflow: {self.tracker.problems}" if self.tracker.problems else None
        new = [r for r in values if (request.config_id, r) not in self._reported]
        self._reported.update((request.config_id, r) for r in new)
        if any(values[r].get("step", step) > request.interval for r in new):
            self.tracker.mark_incomplete(request.config_id)  # what came before its checkpoint went to another driver
        self.tracker.report(request.config_id, step, values)

    def on_trial_warning(self, text: str) -> None:
        self.display.warn(text)

    def on_trial_end(self, request: TrialRequest) -> None:
        self._finish_trial(request)

    def on_trial_lost(self, trial: Trial, log: str) -> Sequence[Trial]:
        """Returns what to run in its place. Nothing after its last attempt; the trial itself where the study ends."""
        lost = retries.lost_trial(log)
        for request in trial:
            self.tracker.mark_incomplete(request.config_id)  # what its worker had not sent yet
        if lost.kind == retries.STORAGE:
            self._held.end(root_error_text(self.folder, lost.cause))
            return [trial]
        if lost.kind == retries.DRIVER:
            self._held.end(lost.cause)
            return [trial]
        try:
            again = retries.retry(trial, lost, self.folder)
        except ROOT_ERRORS as error:
            self.on_root_error(error)
            return [trial]
        for request in trial:
            left = [piece for other in again for piece in other if is_part_of(piece, request)]
            if not left:
                self._finish_trial(request)
                continue
            self._open_trials[request.config_id] += len(left) - 1
            self.display.trial_retried(trial_key(request), request, lost.cause, [trial_key(piece) for piece in left])
        return again

    def on_trial_blocked(self, request: TrialRequest) -> None:
        self._finish_trial(request)

    def on_root_error(self, error: OSError) -> None:
        self._held.end(root_error_text(self.folder, error))

    def _finish_trial(self, request: TrialRequest) -> None:
        rows = self.folder.rows_of(self._entries[request.config_id])
        mine = [row for row in rows if row["replicate"] in request.replicates]
        aucs = [row["val_bag_auc"] for row in mine if row["status"] == "done" and "val_bag_auc" in row]
        failed = sum(row["status"] == "failed" for row in mine)
        self.display.trial_ended(trial_key(request), request, failed, sum(aucs) / len(aucs) if aucs else None)
        if failed and self._fail_fast:
            self._held.end(f"--fail-fast, after a run of {request.label} failed")
        self._open_trials[request.config_id] -= 1
        if not self._open_trials[request.config_id]:
            if request.config_id not in self._begun:  # it never ran
                self._begin(request)
            from d2l_study.study.mlflow.artifacts import stored_curves

            artifacts = artifacts_of(self.folder, request.config_id, rows)
            curves = partial(stored_curves, self.folder, request.config_id, rows)
            self.tracker.finish(request.config_id, rows, artifacts, curves=curves)
            if self._weights is not None:
                self._weights.configuration_ended(request.config_id, rows)


def root_error_text(folder: StudyFolder, error: BaseException | str) -> str:
    """`cannot write to PLACE: REASON`, the reason for which a study ends whose root takes or gives nothing more."""
    reason = getattr(error, "strerror", None) or str(error)
    what = "read from" if isinstance(error, UnreadableError) else "write to"
    one_file = isinstance(error, OSError) and error.errno in (errno.EISDIR, errno.ENOTDIR)  # not the root as a whole
    place = error.filename if isinstance(error, OSError) and one_file else folder.storage.root
    return f"cannot {what} {place}: {reason}"
