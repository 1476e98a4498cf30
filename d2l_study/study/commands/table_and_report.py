"""The report of a study (`python -m analysis report`) as a file of its folder and an artifact of its MLflow page.

It is a courtesy: whatever goes wrong while it is made costs a warning, never the study.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from d2l_study import environment
from d2l_study.study.ledger.study_folder import StudyFolder

NAME = "report.html"


def report_of(folder: StudyFolder, uri: str | None, root: str | None = None) -> dict[str, bytes]:
    """{NAME: the report}, kept in the study's folder too; empty, with a warning, if it could not be made, and without
    one if no run is finished or `D2L_REPORT` says no. uri: of MLflow, for links; root: as the user wrote it."""
    if not environment.reports_wanted():
        return {}
    try:
        import analysis
        from analysis.report.report import make_report

        where = str(folder.storage.root)
        rows = analysis.load(folder.name, where)
        if not (rows["status"] == "done").any():
            return {}
        text = make_report(rows, root=where if root is None else root, uri=uri).encode()
        folder.storage.put(f"{folder.key}/{NAME}", text)
        return {NAME: text}
    except (Exception, KeyboardInterrupt) as error:
        said = (str(error).splitlines() or [""])[0]
        print(
            f"warning: the report of {folder.name} could not be made: {type(error).__name__}: {said}", file=sys.stderr
        )
        return {}


def outcomes_digest(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """What a report depends on, so that it is not made again for the same results."""
    keys = ("config_id", "replicate", "status", "committed_at", "bag_auc", "instance_auc", "val_bag_auc")
    return hashlib.sha256(repr([[row.get(key) for key in keys] for row in rows]).encode()).digest()


def report_artifact(folder: StudyFolder, uri: str) -> dict[str, Callable[[], bytes]]:
    """The same, made when it is written. Where it could not be made, the artifact says so."""

    def make() -> bytes:
        found = report_of(folder, uri)
        return found.get(NAME) or b"<!DOCTYPE html><title>no report</title><p>No report could be made.</p>\n"

    return {NAME: make} if environment.reports_wanted() else {}
