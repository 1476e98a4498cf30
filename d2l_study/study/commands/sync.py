"""`sync`: bring an MLflow store up to date with a study's ledger, at any time and by anybody."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2l_study.credentials import masked
from d2l_study.errors import UserError, counted
from d2l_study.study.commands.configuration_artifacts import artifacts_of
from d2l_study.study.commands.table_and_report import outcomes_digest, report_artifact
from d2l_study.study.ledger.lease import holder
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow import run_page
from d2l_study.study.mlflow.address import check_uri, one_line
from d2l_study.study.mlflow.store import CONTENT, PARENT
from d2l_study.study.mlflow.tracking import Tracker


@dataclass(frozen=True)
class SyncResult:
    """What was done in MLflow. created, updated, unchanged, not_run: how many configurations; deleted: how many runs of
    configurations that left the plan; url: the page of the study, if the store is on a server."""

    created: int
    updated: int
    unchanged: int
    not_run: int
    deleted: int
    url: str | None


def sync_study(study: str, root: str, tracking_uri: str | None) -> int:
    """Bring an MLflow store up to date with a study, or with its removal. Returns the exit code: 1 if the store is away
    that a removed study is still in."""
    from d2l_study.study.commands.remove import forget_removed, was_removed
    from d2l_study.study.mlflow.address import resolve_uri
    from d2l_study.study.mlflow.run_page import study_page

    if was_removed(storage := open_storage(root), study):
        return int(not forget_removed(storage, study, tracking_uri))
    folder = find_study(study, root)
    uri = resolve_uri(tracking_uri, folder.storage.root)
    page = study_page(folder)
    found = sync_mlflow(folder, uri, tags=page.tags, params=page.params, description=page.description,
                 live=holder(folder) is not None)  # fmt: skip
    print(
        f"{folder.name}: {found.created} configurations new in MLflow, {found.updated} brought up to date, "
        f"{found.unchanged} right already, {found.not_run} not run yet"
        + (f", {counted(found.deleted, 'run')} deleted that left its plan" if found.deleted else "")
        + f" ({masked(uri)})"
    )
    return 0


def sync_mlflow(
    folder: StudyFolder,
    uri: str,
    *,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    description: str = "",
    live: bool = False,
) -> SyncResult:
    """Bring an MLflow store up to date with a study's ledger. A second time it changes nothing.

    tags: of the parent run and of its children; params: of the parent run; live: a driver trains the study now, and
    runs with the status RUNNING are its own. `UserError` if the store cannot be reached or written.
    """
    check_uri(uri)
    tags, plan = tags or {}, folder.plan()
    varied = list(dict.fromkeys(key for entry in plan for key in entry["varied"]))
    rows = list(folder.iter_rows())
    by_config: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_config.setdefault(row["config_id"], []).append(row)

    tracker = Tracker(uri, folder.name, threaded=False)
    tracker._mended = live
    artifacts = run_page.space_files(folder)
    tracker.start(
        {**tags, **run_page.study_tags(rows)}, params or {}, artifacts, varied=varied, description=description,
        planned=folder.planned,
    )  # fmt: skip
    states = {row["status"] for row in rows}
    page = tracker._pages[PARENT]
    page.status = "FAILED" if "failed" in states else "FINISHED"
    page.metrics = run_page.study_metrics(rows)
    page.seal = hashlib.sha256(b"".join([*artifacts.values(), outcomes_digest(rows)])).hexdigest()[:16]
    if "done" in states:
        page.artifacts |= report_artifact(folder, uri)
    try:
        tracker._open()
    except Exception as error:
        raise UserError(f"tracking URI {uri!r}: {one_line(error)}") from None
    tracker._gaps.discard(PARENT)  # it has no curves, and its seal says what it shows
    known = dict(tracker._runs.known)
    if PARENT in known and (live or ("missing" in states and known[PARENT].status == "KILLED")):
        page.status = known[PARENT].status  # stopped before its end, and nobody has gone on since

    counts = dict.fromkeys(("created", "updated", "unchanged", "not_run"), 0)
    shown = folder.storage.map(lambda e: artifacts_of(folder, e["config_id"], by_config[e["config_id"]]), plan)
    for entry, pictures in zip(plan, shown, strict=True):
        config, mine = entry["config_id"], by_config[entry["config_id"]]
        there = known.get(config)
        if live and there is not None and there.status == "RUNNING":
            counts["unchanged"] += 1
        elif all(row["status"] == "missing" for row in mine):
            counts["not_run"] += 1
        elif there is not None and there.tags.get(CONTENT) == run_page.seal(mine, entry["values"], pictures):
            counts["unchanged"] += 1
        else:
            counts["created" if there is None else "updated"] += 1
            tracker.publish(folder, entry, mine, tags, pictures)
    written = tracker._flush()
    if not written or tracker.problems:
        raise UserError(tracker.problems or f"tracking URI {uri!r}: not everything could be written")
    return SyncResult(**counts, deleted=tracker.deleted, url=tracker.url)
