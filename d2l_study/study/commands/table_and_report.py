"""What a study shows of its results: its rows, its table, the figures of a search, and its report. The only module of
`d2l_study` that imports `analysis`, beside the command line.

The report (`d2l report`) is a file of the study's folder and an artifact of its MLflow page. It is a
courtesy: whatever goes wrong while it is made costs a warning, never the study.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from d2l_study import environment
from d2l_study.errors import UserError
from d2l_study.study.ledger.study_folder import StudyFolder

if TYPE_CHECKING:
    import pandas

NAME = "report.html"
FIGURE_NAME = "figure.png"


def rows_of(name: str, root: str) -> pandas.DataFrame:
    """The rows of a study, one per run, with the labels of its space (`analysis.load`)."""
    import analysis

    return analysis.load(name, root)


def table_of(
    folder: StudyFolder, rows: pandas.DataFrame, metric: str | None, *, search: bool, explain: bool = False
) -> str:
    """The table at the end of a study, in Markdown; of a search the best trial of each arm. Empty if no run has
    started. metric: what the table shows, None for the default; a search shows its own. explain: with how its
    intervals and tests are made."""
    if search:
        from analysis.tables.search_table import search_table

        return search_table(folder, rows, explain=explain)
    if not (rows["status"] != "missing").any():
        return ""
    from analysis.tables.study_table import table

    return table(rows, metric).text(explain=explain)


def search_artifacts(folder: StudyFolder) -> dict[str, Callable[[], bytes]]:
    """The figures of a search as artifacts of the study's MLflow page, each drawn when called. Empty if the study is no
    search, or no trial is complete."""
    from analysis.figures.search import search_pngs

    return search_pngs(folder)


def report_of(folder: StudyFolder, uri: str | None, root: str | None = None) -> dict[str, bytes]:
    """{NAME: the report, FIGURE_NAME: the figure that says most of the study}, kept in the study's folder too.

    Without the figure where nothing can be drawn. Empty if the report could not be made, with a warning, if no run is
    finished, or if `D2L_REPORT` says no. uri: of MLflow, for links; root: as the user wrote it."""
    if not environment.reports_wanted():
        return {}
    try:
        from analysis.report.report import make_report

        where = str(folder.storage.root)
        rows = rows_of(folder.name, where)
        if not (rows["status"] == "done").any():
            return {}
        text = make_report(rows, root=where if root is None else root, uri=uri).encode()
        made = {NAME: text, **_main_figure(rows, folder)}
        for name, content in made.items():
            folder.storage.put(f"{folder.key}/{name}", content)
        return made
    except (Exception, KeyboardInterrupt) as error:
        said = (str(error).splitlines() or [""])[0]
        print(
            f"warning: the report of {folder.name} could not be made: {type(error).__name__}: {said}", file=sys.stderr
        )
        return {}


def _main_figure(rows: pandas.DataFrame, folder: StudyFolder) -> dict[str, bytes]:
    """{FIGURE_NAME: a PNG}: students minus their teachers; without these a metric against the number of bags, or a
    point for each arm. Empty where no run has a metric, and for a search, which has figures of its own
    (`search_artifacts`)."""
    import io

    import matplotlib as mpl

    import analysis
    from analysis.figures import style
    from analysis.report.report import shown_rows
    from d2l_study.study.ledger.search_document import read_document

    if read_document(folder) is not None:
        return {}
    shown, _ = shown_rows(rows, folder)
    students = bool((shown["stage"] == "student").any())
    for kind in (*(["pairs"] if students else []), "curves"):
        try:
            figure = analysis.figure(shown, kind)
        except UserError:  # such as pairs of which no teacher is done yet
            continue
        out = io.BytesIO()
        with mpl.rc_context(style.RC):
            figure.savefig(out, format="png")
        return {FIGURE_NAME: out.getvalue()}
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
