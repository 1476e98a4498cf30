"""Tracking in MLflow: a window on a study that can be rebuilt from the ledger; training never waits for it.

The driver alone writes, through one `Tracker` whose thread brings MLflow up to date every few seconds. The
caller's side only changes wished states in memory: it makes no request and raises nothing of MLflow's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from d2l_study.credentials import masked
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow import run_page
from d2l_study.study.mlflow.address import StoreAway, check_uri, one_line, resolve_uri
from d2l_study.study.mlflow.store import (
    CAUSE,
    CONTENT,
    PARENT,
    REPLICATES,
    REUSED,
    ROWS,
    TRIAL,
    Content,
    Page,
    StudyRuns,
    table_view,
)  # fmt: skip

__all__ = ["StoreAway", "Tracker", "check_uri", "resolve_uri"]

MAX_BUFFERED = 200_000
"""Values of curves kept while the store is away (some 20 MB); beyond it the oldest are given up for `sync`."""

LONGEST_PAUSE = 60.0
CLOSING_ATTEMPTS = 3
CLOSING_SECONDS, AWAY_SECONDS = 15.0, 5.0
"""How long the end of a study waits for the next answer of a store, and of one that was away at its start."""

TABLE_METRICS = ("val_bag_auc", "bag_auc", "bag_auc_std", "instance_auc", "train_seconds")
TABLE_PARAMS = ("method", "num_bags", "mean_bag_size")


Curves = Callable[[], list[tuple[int, dict[int, dict[str, float]]]]]
"""All points of a configuration's curves: (step, replicate -> values)."""


class Tracker:
    """The MLflow runs of one study while it runs: a parent, and a child per configuration."""

    def __init__(
        self,
        uri: str,
        study: str,
        *,
        flush_seconds: float = 3.0,
        max_buffered: int = MAX_BUFFERED,
        threaded: bool = True,
        ours: Callable[[], bool] = lambda: True,
    ) -> None:
        """ours: whether the study is still this driver's. Once it is another's, nothing more is written."""
        self.uri, self.study, self.flush_seconds, self.max_buffered = masked(uri), study, flush_seconds, max_buffered
        self._threaded, self._ours = threaded, ours
        self._runs = StudyRuns(uri, study)
        self._pages: dict[str, Page] = {}
        self._changed: dict[str, None] = {}  # keys whose state is to be written, in order
        self._gaps: set[str] = set()  # runs whose curves may lack points in MLflow
        self._curves: dict[str, Curves] = {}  # where all points of such a run are
        self._written: set[str] = set()
        self._experiment_tags: dict[str, str] = {}
        self._buffered = self._progress = 0
        self._opened = self._mended = self._swept = False
        self._planned: Callable[[], set[str]] | None = None
        self.deleted = 0
        self._refused: dict[str, int] = {}
        self._away: str | None = None
        self._lost: str | None = None
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- what the driver calls
    def start(
        self,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        artifacts: Mapping[str, Content],
        *,
        varied: Sequence[str] = (),
        description: str = "",
        planned: Callable[[], set[str]] | None = None,
    ) -> None:
        """Begin (or take up again) the study's parent run, and the writing. `varied` are keys that get a column;
        `planned` tells the config_ids of the study's plan: runs of others, which were pruned, are deleted."""
        columns = [*TABLE_PARAMS, *(k for k in varied if k not in TABLE_PARAMS)]
        self._experiment_tags = table_view(columns, TABLE_METRICS, order_by=TABLE_METRICS[0])
        if description:
            self._experiment_tags["mlflow.note.content"] = description
        self._planned = planned
        with self._lock:
            self._pages[PARENT] = Page(self.study, dict(tags), dict(params), artifacts=dict(artifacts))
            self._changed[PARENT] = None
        if self._threaded:
            self._thread = threading.Thread(target=self._loop, name="mlflow-tracker", daemon=True)
            self._thread.start()

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
        """Begin the child run of a configuration, or take it up again.

        `replicates` are those that will report, where several trials share a configuration's replicates: the
        mean curve waits for all of them. Without it, those of the first report.
        """
        with self._lock:
            page = self._pages.setdefault(config_id, Page(""))
            page.name = run_page.run_name(method, stage, params, varied)
            page.params = {"method": method, "stage": stage, **params}
            page.tags |= {**tags, TRIAL: trial_id(config_id), CONTENT: ""}
            page.status, page.seal, page.replicates = "RUNNING", None, tuple(sorted(replicates))
            self._changed[config_id] = None

    def report(self, config_id: str, step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        """A point of the curves of a configuration that has begun: step (optimizer steps), replicate -> values.

        Shown as `curve/NAME/r000` and, their mean, `curve/NAME`. (Under its bare name a curve would hide the
        final metric of that name: MLflow shows the value of the largest step.) A value `step` is the replicate's
        own step, where it stopped before the others.
        """
        copied = {int(r): dict(v) for r, v in values.items()}
        with self._lock:
            self._pages[config_id].reports.append((step, copied))
            self._changed[config_id] = None
            self._buffered += _size(copied)
            self._bound_memory()

    def finish(
        self,
        config_id: str,
        rows: Sequence[Mapping[str, Any]],
        artifacts: Mapping[str, Content],
        reused_from: str | None = None,
        *,
        curves: Curves | None = None,
    ) -> None:
        """Final state of a configuration that has begun, from all its rows (planned replicates, done or not).

        Artifacts given as functions, and `curves`, are called in the thread; `curves` only if MLflow may lack
        points (an earlier driver died, or the store was away for long).
        """
        status, count, cause = run_page.outcome(rows)
        with self._lock:
            page = self._pages[config_id]
            page.metrics = run_page.final_metrics(rows, page.params)
            page.tags |= {REPLICATES: count, CAUSE: cause or "", ROWS: run_page.row_facts(rows)}
            if reused_from:
                page.tags[REUSED] = reused_from
            page.status = status
            page.artifacts |= artifacts
            page.seal = run_page.seal(rows, page.params, artifacts)
            if curves is not None:
                self._curves[config_id] = curves
            self._changed[config_id] = None

    def publish(
        self,
        folder: StudyFolder,
        entry: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        tags: Mapping[str, str],
        artifacts: Mapping[str, Content],
        reused_from: str | None = None,
    ) -> None:
        """Show a configuration of the plan wholly from the ledger, curves included: a result that was there.

        artifacts: those of `run_page.artifacts_of`."""
        config = entry["config_id"]
        done = [int(row["replicate"]) for row in rows if row["status"] == "done"]
        with self._lock:  # as one change, so that a page that is right already is left alone
            self.begin(config, method=entry["method"], stage=entry["stage"], params=entry["values"],
                       tags={**tags, **run_page.origin_tags(entry)}, varied=entry["varied"],
                       replicates=done)  # fmt: skip
            self._gaps.add(config)
            self.finish(config, rows, artifacts, reused_from,
                        curves=partial(run_page.reports_of, folder, config, rows))  # fmt: skip

    def may_lack(self, config_id: str) -> None:
        """Points of a configuration that has begun were lost on their way here: its curves are read when it ends."""
        with self._lock:
            self._gaps.add(config_id)

    def end(
        self, status: str, artifacts: Mapping[str, Content], tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        """Final state of the parent run: FINISHED, FAILED or KILLED."""
        with self._lock:
            page = self._pages[PARENT]
            page.metrics |= metrics or {}
            page.status = status
            page.artifacts |= artifacts
            page.tags |= tags or {}
            self._changed[PARENT] = None

    def close(self, timeout: float = CLOSING_SECONDS) -> bool:
        """Write what is left and stop, waiting at most `timeout` seconds for the store to take the next run's
        state; False if something could not be written.

        Runs that were not finished end as KILLED.
        """
        with self._lock:
            for key, page in self._pages.items():
                if page.status == "RUNNING":
                    page.status = "KILLED"
                    self._changed[key] = None
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            seen, deadline = -1, 0.0
            while self._thread.is_alive():
                if self._progress != seen:  # a long backlog is written to its end, a store that hangs is left
                    seen, deadline = self._progress, time.monotonic() + timeout
                if time.monotonic() > deadline:
                    return False
                self._thread.join(0.1)
        return not self._changed and self._lost is None

    @property
    def problems(self) -> str | None:
        """What is wrong, in one line, or None; it goes when a store that was away is up to date again."""
        return self._away or self._lost

    @property
    def url(self) -> str | None:
        """The page of the study, once it is known and if it is on a server."""
        return self._runs.url() if self._opened else None

    # ---- the thread
    def _loop(self) -> None:
        failures = 0
        while True:
            written = self._flush()
            failures = 0 if written else failures + 1
            if self._closing.is_set():
                if written and not self._changed and not self._swept:
                    self._swept, self._opened = True, False  # once more: no run is there twice
                    continue
                if not self._changed or failures > CLOSING_ATTEMPTS:  # a store that is away now is left to `sync`
                    return
                time.sleep(0.2 if failures else 0.0)
                continue
            pause = min(self.flush_seconds * 2 ** min(failures, 10), max(LONGEST_PAUSE, self.flush_seconds))
            self._wake.wait(pause)

    def _flush(self) -> bool:
        """Write all that changed; False if the store could not take it (what was not written is kept)."""
        if not self._ours():
            with self._lock:
                self._changed.clear()
            return True
        try:
            if not self._opened:
                self._open()
            self._write_changed()
        except Exception as error:
            self._opened = False  # find the runs again: a request that failed may have been carried out
            self._away = f"MLflow at {self.uri}: {one_line(error)}; the results are in the ledger"
            return False
        self._away = None
        return True

    def _open(self) -> None:
        before = {key: known.run_id for key, known in self._runs.known.items()}
        self._runs.open()
        moved = {key for key, known in self._runs.known.items() if before.get(key, known.run_id) != known.run_id}
        if not self._mended:  # before anything of ours is RUNNING there
            self._runs.mend_stale()
            if self._planned is not None:
                self.deleted = self._runs.forget(self._runs.known.keys() - self._planned() - {PARENT})
            self._gaps.update(self._runs.known)
            self._mended = True
        self._runs.describe(self._experiment_tags)
        self._opened = True
        with self._lock:
            # Deleted in the store, and made anew; or another driver's stays, which was there first.
            for key in (self._written - self._runs.known.keys()) | (self._written & moved):
                self._written.discard(key)
                self._gaps.add(key)
                self._pages[key].seal = None  # its artifacts are gone too
                self._changed[key] = None

    def _write_changed(self) -> None:
        """All states first, so that large artifacts hold up no curve; then artifacts and seals."""
        waiting: list[tuple[str, Page]] = []
        try:
            with self._lock:
                keys = sorted(self._changed, key=lambda k: k != PARENT)  # a child needs its parent's id
            for key in keys:
                page = self._take(key)
                waiting.append((key, page))
                try:
                    self._runs.write(key, page)
                except Exception as error:
                    if self._is_temporary(key, page, error):
                        raise
                    waiting.pop()
                    continue
                self._written.add(key)
                self._progress += 1
                page.reports = []
            while waiting:
                key, page = waiting[0]
                for problem in self._runs.write_artifacts(key, page):
                    self._lost = self._lost or problem
                waiting.pop(0)
                self._progress += 1
        except BaseException:
            for key, page in waiting:
                self._put_back(key, page)
            raise

    def _take(self, key: str) -> Page:
        """What to write of a run now: its state, and its reports and artifacts, which the wished page gives up."""
        with self._lock:
            wished = self._pages[key]
            page = replace(wished, tags=dict(wished.tags))
            wished.reports, wished.artifacts = [], {}
            self._buffered -= sum(_size(values) for _, values in page.reports)
            self._changed.pop(key, None)
            curves = self._curves.get(key)
        known = self._runs.known.get(key)
        if page.seal is not None and known is not None and known.tags.get(CONTENT) == page.seal:
            page.reports, page.artifacts = [], {}  # it is all there
        elif page.seal is not None and key in self._gaps:
            if curves is None:
                page.seal = None
            else:
                try:
                    page.reports = list(curves())
                    self._gaps.discard(key)
                except (OSError, ValueError, KeyError) as error:
                    page.seal = None
                    self._lost = self._lost or f"{page.name}: its curves could not be read: {one_line(error)}"
        if page.seal is not None and known is not None:
            page.tags[CONTENT] = known.tags.get(CONTENT, "")  # the seal itself comes last
        return page

    def _put_back(self, key: str, page: Page) -> None:
        with self._lock:
            wished = self._pages[key]
            wished.reports[:0] = page.reports
            wished.artifacts = {**page.artifacts, **wished.artifacts}
            self._buffered += sum(_size(values) for _, values in page.reports)
            self._changed[key] = None
            self._bound_memory()

    def _is_temporary(self, key: str, page: Page, error: Exception) -> bool:
        """False if the store refuses this run for good, which then must not hold up the others."""
        if getattr(error, "error_code", None) not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
            return True
        self._refused[key] = self._refused.get(key, 0) + 1
        if self._refused[key] < 3 or key == PARENT:  # at first it may be a run that a person deleted
            return True
        self._lost = self._lost or f"MLflow at {self.uri} refuses {page.name}: {one_line(error)}"
        return False

    def _bound_memory(self) -> None:
        """Give up the older half of the longest waiting curve (called with the lock held)."""
        while self._buffered > self.max_buffered:
            key, page = max(self._pages.items(), key=lambda item: len(item[1].reports))
            half = (len(page.reports) + 1) // 2
            self._buffered -= sum(_size(values) for _, values in page.reports[:half])
            del page.reports[:half]
            self._gaps.add(key)
            self._lost = f"MLflow at {self.uri} was away for long: it lacks parts of curves, which `sync` brings"


def _size(values: Mapping[int, Mapping[str, float]]) -> int:
    return sum(len(v) for v in values.values())
