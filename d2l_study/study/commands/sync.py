"""`sync`: bring an MLflow store up to date with a study's ledger, at any time and by anybody."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from d2l_study import environment
from d2l_study.credentials import MASK, masked
from d2l_study.errors import ROOT_ERRORS, UserError, counted
from d2l_study.study.commands.arm_models import arm_models
from d2l_study.study.commands.configuration_artifacts import artifacts_of
from d2l_study.study.commands.table_and_report import outcomes_digest, report_artifact
from d2l_study.study.ledger.lease import holder
from d2l_study.study.ledger.removals import known_here
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.address import StoreUnreachable, check_uri, one_line
from d2l_study.study.mlflow.page import PARENT
from d2l_study.study.mlflow.pages import StudyPages
from d2l_study.study.mlflow.study_page import experiment_tags, space_files, study_metrics, study_tags
from d2l_study.study.mlflow.study_stores import keep_store, kept_stores, stores_of
from d2l_study.study.mlflow.writer import PageWriter


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
    from d2l_study.study.mlflow.study_page import study_page

    if was_removed(storage := open_storage(root), study):
        return int(not forget_removed(storage, study, tracking_uri))
    folder = find_study(study, root)
    uri = _store_of(folder, tracking_uri)
    page = study_page(folder)
    found = sync_mlflow(folder, uri, tags=page.tags, params=page.params, description=page.description,
                 live=holder(folder) is not None)  # fmt: skip
    with contextlib.suppress(*ROOT_ERRORS):  # anybody may sync, whom the root may not let write
        keep_store(folder, uri)
    print(
        f"{folder.name}: {found.created} configurations new in MLflow, {found.updated} brought up to date, "
        f"{found.unchanged} right already, {found.not_run} not run yet"
        + (f", {counted(found.deleted, 'run')} deleted that left its plan" if found.deleted else "")
        + f" ({masked(uri)})"
    )
    return 0


def _store_of(folder: StudyFolder, tracking_uri: str | None) -> str:
    """The store that is named, else the last one of the study, else the root's own. Whoever reads a bucket may be on
    another machine than the `run`: it is never a store of that one there. `UserError` if it cannot be used."""
    kept = kept_stores(folder) if isinstance(folder.storage.root, Path) else []
    uri = stores_of(tracking_uri, folder.storage.root, kept)[0]
    if tracking_uri or environment.tracking_uri() or not kept:
        return uri
    written, name_it = f"study {folder.name!r} was last written", "name it or another store with --tracking-uri"
    if MASK in uri:
        raise UserError(f"{written} to {uri}; what is secret in that address is not kept: {name_it}")
    try:
        check_uri(uri)
    except StoreUnreachable as error:
        raise UserError(f"{error.reason}; {written} there: {name_it}") from None
    return uri


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

    pages, artifacts = StudyPages(folder.name), space_files(folder)
    writer = PageWriter(
        pages, uri, experiment_tags=experiment_tags(varied, description), planned=folder.planned,
        known=known_here(folder.storage, folder.name), live=live,
    )  # fmt: skip
    pages.begin_study({**tags, **study_tags(rows)}, params or {}, artifacts)
    try:
        writer.open()
    except Exception as error:
        raise UserError(f"tracking URI {uri!r}: {one_line(error)}") from None
    known, states = dict(writer.stored), {row["status"] for row in rows}
    trained = {config for config, mine in by_config.items() if any(row["status"] != "missing" for row in mine)}
    status = "FAILED" if "failed" in states else "FINISHED"
    if PARENT in known and (live or ("missing" in states and known[PARENT].status == "KILLED")):
        status = known[PARENT].status  # stopped before its end, and nobody has gone on since
    digest = hashlib.sha256(b"".join([*artifacts.values(), outcomes_digest(rows)])).hexdigest()[:16]
    report = report_artifact(folder, uri) if "done" in states else {}
    pages.end(status, report, metrics=study_metrics(rows), digest=digest)
    if not live:
        pages.keep_models(partial(arm_models, folder, rows))

    shown = folder.storage.map(lambda e: artifacts_of(folder, e["config_id"], by_config[e["config_id"]]), plan)
    at_work = {config for config, run in known.items() if live and run.status == "RUNNING"}
    for entry, pictures in zip(plan, shown, strict=True):
        config = entry["config_id"]
        if config not in at_work and (config in known or config in trained):  # results that are gone leave their page
            pages.publish(folder, entry, by_config[config], tags, pictures)
    written = writer.flush()
    if not written or writer.problems:
        raise UserError(writer.problems or f"tracking URI {uri!r}: not everything could be written")
    counts = dict.fromkeys(("created", "updated", "unchanged", "not_run"), 0)
    for entry in plan:
        config = entry["config_id"]
        if config in writer.altered:
            counts["updated" if config in known else "created"] += 1
        else:
            counts["unchanged" if config in trained | at_work else "not_run"] += 1
    return SyncResult(**counts, deleted=writer.deleted, url=writer.url)
