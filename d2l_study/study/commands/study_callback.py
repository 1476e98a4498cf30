"""What the driver does when it hears of a trial: show it, tell MLflow, and settle its configuration."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from d2l_study.errors import ROOT_ERRORS, UnreadableError
from d2l_study.study.commands.configuration_artifacts import artifacts_of
from d2l_study.study.commands.request import Study
from d2l_study.study.commands.search_run import typical_work
from d2l_study.study.commands.trial_requests import order_key
from d2l_study.study.ledger.best_weights import BEST, BestWeights
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.trial.trial_request import TrialRequest
from d2l_study.study.tune import retries

if TYPE_CHECKING:
    from d2l_study.study.commands.progress_display import Display
    from d2l_study.study.ledger.lease import Lease
    from d2l_study.study.mlflow.tracking import Tracker


class StudyWatch:
    """Hears of trials in the driver: shows them, tells MLflow, and settles a configuration when its last ends."""

    def __init__(
        self, study: Study, entries: Sequence[dict[str, Any]], orders: Sequence[TrialRequest], tracker: Tracker,
        display: Display, tags: Mapping[str, str], held: Lease,
    ) -> None:  # fmt: skip
        self.folder, self.tracker, self.display, self.tags = study.folder, tracker, display, tags
        self._held, self._fail_fast = held, study.request.fail_fast
        self._entries = {entry["config_id"]: entry for entry in entries}
        self._open: dict[str, int] = {}
        self._replicates: dict[str, list[int]] = {}  # of all orders of a configuration
        self._begun: set[str] = set()
        self._heard: set[tuple[str, int]] = set()  # configuration and replicate: whose curve has come, or its rest
        self._typical_work = typical_work(study) if study.search is not None else 0.0
        self._weights = BestWeights(self.folder) if study.space.keep_weights == BEST else None
        self._expect(orders)

    def _expect(self, orders: Sequence[TrialRequest]) -> None:
        for order in orders:
            self._open[order.config_id] = self._open.get(order.config_id, 0) + 1
            self._replicates.setdefault(order.config_id, []).extend(order.replicates)

    def added(self, entries: Sequence[dict[str, Any]], orders: Sequence[TrialRequest]) -> None:
        """A search has asked for more: new entries of the plan, and the orders for them."""
        self._entries |= {entry["config_id"]: entry for entry in entries if entry["config_id"] not in self._entries}
        self._expect(orders)
        for order in orders:
            self.display.add(order_key(order), self._typical_work)
        trained = {order.config_id for order in orders}
        for entry in entries:
            if entry["config_id"] not in trained and entry["config_id"] not in self._replicates:
                rows = self.folder.rows_of(entry)  # it was there
                artifacts = artifacts_of(self.folder, entry["config_id"], rows)
                self.tracker.publish(
                    self.folder, entry, rows, self.tags, artifacts, reused_from(rows, self.folder.name)
                )

    @property
    def open_orders(self) -> int:
        return sum(self._open.values())

    def started(self, order: TrialRequest) -> None:
        self.display.started(order_key(order), order)
        if order.config_id not in self._begun:
            self._begun.add(order.config_id)
            self._begin(order)

    def _begin(self, order: TrialRequest) -> None:
        from d2l_study.study.mlflow import run_page

        entry = self._entries[order.config_id]
        self.tracker.begin(order.config_id, method=entry["method"], stage=entry["stage"], params=entry["values"],
                           tags={**self.tags, **run_page.origin_tags(entry)}, varied=entry["varied"],
                           replicates=entry["replicates"])  # fmt: skip
        if len(self._replicates.get(order.config_id, ())) < len(entry["replicates"]):
            self.tracker.may_lack(order.config_id)  # the others were there, and report nothing

    def reported(self, order: TrialRequest, step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        areas = [v["val_bag_auc"] for v in values.values() if "val_bag_auc" in v]
        self.display.progressed(order_key(order), step, sum(areas) / len(areas) if areas else math.nan)
        self.display.note = f"MLflow: {self.tracker.problems}" if self.tracker.problems else None
        new = [r for r in values if (order.config_id, r) not in self._heard]
        self._heard.update((order.config_id, r) for r in new)
        if any(values[r].get("step", step) > order.interval for r in new):
            self.tracker.may_lack(order.config_id)  # what another driver heard before this run's last checkpoint
        self.tracker.report(order.config_id, step, values)

    def ended(self, order: TrialRequest) -> None:
        self._settle(order)

    def lost(self, order: TrialRequest, log: str) -> Sequence[TrialRequest]:
        """What is to be run in the place of a lost order; nothing if it was its last attempt."""
        loss = retries.loss_of(log)
        self.tracker.may_lack(order.config_id)  # what its worker had not sent yet
        if loss.kind == retries.STORAGE:
            self._held.end(storage_reason(self.folder, loss.cause))
            return [order]
        if loss.kind == retries.DRIVER:
            self._held.end(loss.cause)
            return [order]
        try:
            again = retries.next_attempt(order, loss, self.folder)
        except ROOT_ERRORS as error:
            self.root_lost(error)
            return [order]
        if not again:
            self._settle(order)
            return []
        self._open[order.config_id] += len(again) - 1
        self.display.again(order_key(order), order, loss.cause, [order_key(piece) for piece in again])
        return again

    def blocked(self, order: TrialRequest) -> None:
        self._settle(order)

    def root_lost(self, error: OSError) -> None:
        self._held.end(storage_reason(self.folder, error))

    def _settle(self, order: TrialRequest) -> None:
        rows = self.folder.rows_of(self._entries[order.config_id])
        mine = [row for row in rows if row["replicate"] in order.replicates]
        areas = [row["val_bag_auc"] for row in mine if row["status"] == "done" and "val_bag_auc" in row]
        failed = sum(row["status"] == "failed" for row in mine)
        self.display.ended(order_key(order), order, failed, sum(areas) / len(areas) if areas else None)
        if failed and self._fail_fast:
            self._held.end(f"--fail-fast, after a run of {order.label} failed")
        self._open[order.config_id] -= 1
        if not self._open[order.config_id]:
            if order.config_id not in self._begun:  # it never ran
                self._begin(order)
            from d2l_study.study.mlflow import run_page

            artifacts = artifacts_of(self.folder, order.config_id, rows)
            curves = partial(run_page.reports_of, self.folder, order.config_id, rows)
            self.tracker.finish(order.config_id, rows, artifacts, curves=curves)
            if self._weights is not None:
                self._weights.ended(order.config_id, rows)


def reused_from(rows: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """The other studies that made these runs."""
    makers = {str(row.get("made_by")) for row in rows if row.get("made_by") not in (None, name)}
    return ", ".join(sorted(makers)) or None


def storage_reason(folder: StudyFolder, error: BaseException | str) -> str:
    said = getattr(error, "strerror", None) or str(error)
    what = "read from" if isinstance(error, UnreadableError) else "write to"
    of_one = isinstance(error, OSError) and error.errno in (errno.EISDIR, errno.ENOTDIR)  # not of the root as a whole
    place = error.filename if isinstance(error, OSError) and of_one else folder.storage.root
    return f"cannot {what} {place}: {said}"
