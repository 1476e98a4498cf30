"""The pages of a study as they are to be: its own page, and one for each configuration.

Whoever trains changes pages in memory only, which neither waits for MLflow nor raises its errors. `writer` brings a
store up to date with them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.artifacts import stored_curves
from d2l_study.study.mlflow.configuration_page import (
    final_metrics,
    origin_tags,
    outcome,
    page_digest,
    reused_from,
    row_facts,
    run_name,
)
from d2l_study.study.mlflow.page import PARENT, Content, Page, Report
from d2l_study.study.mlflow.tags import CAUSE, DIGEST, REPLICATES, REUSED, ROWS, TRIAL

if TYPE_CHECKING:
    from d2l_study.study.mlflow.study_models import StudyModels

MAX_BUFFERED = 200_000
"""Values of curves kept while the store is away (some 20 MB). Beyond it the oldest are dropped, and `sync` brings
them."""

Curves = Callable[[], Sequence[Report]]
"""Reads all points of a configuration's curves."""


class StudyPages:
    """The pages of one study, and which of them have changed since they were last written.

    changed: keys of pages that are to be written, in order; incomplete: keys of runs whose curves may lack points in
    MLflow, which are then read from the ledger when the run ends; points_dropped: whether points were given up for want
    of memory. lock: held while pages are read or changed.
    """

    def __init__(self, study: str, max_buffered: int = MAX_BUFFERED) -> None:
        self.study, self.max_buffered = study, max_buffered
        self.lock = threading.RLock()
        self.changed: dict[str, None] = {}
        self.incomplete: set[str] = set()
        self.points_dropped = False
        self._pages: dict[str, Page] = {}
        self._curves: dict[str, Curves] = {}
        self._buffered = 0

    def begin_study(
        self, tags: Mapping[str, str], params: Mapping[str, Any], artifacts: Mapping[str, Content]
    ) -> None:  # fmt: skip
        """Begin the page of the study, or take it up again."""
        with self.lock:
            self._pages[PARENT] = Page(self.study, dict(tags), dict(params), artifacts=dict(artifacts))
            self.changed[PARENT] = None

    def begin(
        self,
        config_id: str,
        *,
        method: str,
        stage: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        varied: Sequence[str] = (),
        replicates: Sequence[int] = (),
    ) -> None:
        """Begin the page of a configuration, or take it up again.

        replicates: those that will report, where several trials share a configuration's replicates: the mean curve
        waits for all of them. Without it, those of the first report.
        """
        with self.lock:
            page = self._pages.setdefault(config_id, Page(""))
            page.name = run_name(method, stage, params, varied)
            page.params = {"method": method, "stage": stage, **params}
            page.tags |= {**tags, TRIAL: trial_id(config_id), DIGEST: ""}
            page.status, page.digest, page.replicates = "RUNNING", None, tuple(sorted(replicates))
            page.complete = False
            self.changed[config_id] = None

    def report(self, config_id: str, step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        """Add a point to the curves of a configuration that has begun: optimizer step, replicate -> metric -> value.

        Shown as `curve/NAME/r000` and, their mean, `curve/NAME`. (Under its bare name a curve would hide the final
        metric of that name: MLflow shows the value of the largest step.) A value `step` is the replicate's own step,
        where it stopped before the others.
        """
        copied = {int(r): dict(v) for r, v in values.items()}
        with self.lock:
            self._pages[config_id].reports.append((step, copied))
            self.changed[config_id] = None
            self._buffered += _size(copied)
            self._bound_memory()

    def mark_incomplete(self, config_id: str) -> None:
        """Some points of a configuration that has begun were lost before they were reported."""
        with self.lock:
            self.incomplete.add(config_id)

    def finish(
        self,
        config_id: str,
        rows: Sequence[Mapping[str, Any]],
        artifacts: Mapping[str, Content],
        *,
        curves: Curves | None = None,
    ) -> None:
        """Set the final state of a configuration that has begun, from all its rows (planned replicates, done or not).

        Artifacts given as functions, and `curves`, are called by the writer; `curves` only if MLflow may lack points
        (an earlier driver died, or the store was away for long).
        """
        status, count, cause = outcome(rows)
        with self.lock:
            page = self._pages[config_id]
            page.metrics, page.complete = final_metrics(rows, page.params), True
            page.tags |= {REPLICATES: count, CAUSE: cause or "", ROWS: row_facts(rows),
                          REUSED: reused_from(rows, self.study)}  # fmt: skip
            page.status = status
            page.artifacts |= artifacts
            page.digest = page_digest(rows, page.params, artifacts)
            if curves is not None:
                self._curves[config_id] = curves
            self.changed[config_id] = None

    def publish(
        self,
        folder: StudyFolder,
        entry: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        tags: Mapping[str, str],
        artifacts: Mapping[str, Content],
    ) -> None:
        """Set the page of a configuration of the plan wholly from the ledger, curves included: its results were there.

        artifacts: those of `artifacts.artifacts_of`."""
        config = entry["config_id"]
        done = [int(row["replicate"]) for row in rows if row["status"] == "done"]
        with self.lock:  # as one change, so that a page that is right already is left alone
            self.begin(config, method=entry["method"], stage=entry["stage"], params=entry["values"],
                       tags={**tags, **origin_tags(entry)}, varied=entry["varied"], replicates=done)  # fmt: skip
            self.incomplete.add(config)
            self.finish(config, rows, artifacts, curves=partial(stored_curves, folder, config, rows))

    def end(
        self, status: str, artifacts: Mapping[str, Content], tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None, digest: str | None = None,
    ) -> None:  # fmt: skip
        """Set the final state of the study's page. status: FINISHED, FAILED or KILLED; metrics: all that it shows, None
        leaves them as they are."""
        with self.lock:
            page = self._pages[PARENT]
            if metrics is not None:
                page.metrics, page.complete = dict(metrics), True
            page.status = status
            page.artifacts |= artifacts
            page.tags |= tags or {}
            page.digest = digest
            self.changed[PARENT] = None

    def keep_models(self, models: Callable[[], StudyModels]) -> None:
        """Let MLflow hold these models of the study, and no others. The function is called by the writer."""
        with self.lock:
            self._pages[PARENT].models = models
            self.changed[PARENT] = None

    def end_running(self) -> None:
        """Set every page that has not ended to KILLED."""
        with self.lock:
            for key, page in self._pages.items():
                if page.status == "RUNNING":
                    page.status = "KILLED"
                    self.changed[key] = None

    # ---- for the writer
    def take(self, key: str) -> tuple[Page, Curves | None]:
        """What is to be written of a page now, and how all points of its curves are read. The reports, artifacts
        and models leave the page, which has not changed any more."""
        with self.lock:
            wished = self._pages[key]
            page = replace(wished, tags=dict(wished.tags))
            wished.reports, wished.artifacts, wished.models = [], {}, None
            self._buffered -= sum(_size(values) for _, values in page.reports)
            self.changed.pop(key, None)
            return page, self._curves.get(key)

    def put_back(self, key: str, page: Page) -> None:
        """What was taken could not be written: its reports, artifacts and models go back to the page."""
        with self.lock:
            wished = self._pages[key]
            wished.reports[:0] = page.reports
            wished.artifacts = {**page.artifacts, **wished.artifacts}
            wished.models = wished.models or page.models
            self._buffered += sum(_size(values) for _, values in page.reports)
            self.changed[key] = None
            self._bound_memory()

    def write_anew(self, keys: Sequence[str]) -> None:
        """Runs of these keys were deleted in the store, or made anew: nothing of their pages is there any more."""
        with self.lock:
            for key in keys:
                self.incomplete.add(key)
                self._pages[key].digest = None  # its artifacts are gone too
                self.changed[key] = None

    def _bound_memory(self) -> None:
        """Drop the older half of the longest waiting curve (called with the lock held)."""
        while self._buffered > self.max_buffered:
            key, page = max(self._pages.items(), key=lambda item: len(item[1].reports))
            half = (len(page.reports) + 1) // 2
            self._buffered -= sum(_size(values) for _, values in page.reports[:half])
            del page.reports[:half]
            self.incomplete.add(key)
            self.points_dropped = True


def _size(values: Mapping[int, Mapping[str, float]]) -> int:
    return sum(len(v) for v in values.values())
