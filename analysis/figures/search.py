"""Figures of a search, from its document `search.json` (`d2l_study.study.search`), all by the validation metric:

    best          value of each trial and the best so far (`search_history`)
    importances   share of each key in the variation of the value (`search_importances`)
    parallel      each trial as a line over its keys (`search_parallel`)

Trials that failed or were ended early have no value: they are ticks at the lower edge, and in no curve.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from analysis.cells.hardware import hardware_differences_of_rows
from analysis.cells.search_results import complete_trials
from analysis.figures import style
from analysis.figures.options import SEARCH_KINDS
from analysis.figures.search_history import draw_history
from analysis.figures.search_importances import draw_importances
from analysis.figures.search_parallel import draw_parallel
from analysis.rows.display_names import PLAIN, Names
from analysis.rows.loading import labels_of, study_folder
from d2l_study.errors import UserError
from d2l_study.study.ledger.search_document import read_document

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from d2l_study.study.ledger.study_folder import StudyFolder

ORACLE_NOTE = "† ORACLE: this search looked at true instance labels"


def draw_search(
    study: str, root: str, kind: str, size: str = "page", labels: Mapping[str, str] | None = None
) -> Figure:
    """The figure of a study's search. labels: names for print over those of its space. `UserError` if the study is no
    search, or nothing of this kind can be drawn."""
    folder = study_folder(study, root)
    return draw_search_of(folder, kind, size, Names({**labels_of(folder), **(labels or {})}))


def draw_search_of(folder: StudyFolder, kind: str, size: str = "page", names: Names = PLAIN) -> Figure:
    """The same of a study's folder."""
    document = read_document(folder)
    if document is None:
        raise UserError(f"--kind {kind}: study {folder.name!r} is no search (its space has no section search)")
    return draw_document(
        document, kind, folder.name, size, names, " ".join(hardware_differences_of_rows(folder.rows()))
    )


def draw_document(document: Mapping[str, Any], kind: str, name: str, size: str = "page", names: Names = PLAIN,
                  note: str = "") -> Figure:  # fmt: skip
    """The same of a search's document. kind: one of `SEARCH_KINDS`; name: of the study, for messages; note: what stands
    above. `UserError` if no trial is complete."""
    if not complete_trials(document["trials"]):
        raise UserError(f"--kind {kind}: study {name!r} has no complete trial yet")
    with style.use(size):
        draw = {"best": draw_history, "importances": draw_importances, "parallel": draw_parallel}[kind]
        figure = draw(document, names)
        if note:  # below there are legends
            figure.suptitle(style.note_lines(figure, note), fontsize="small", color=style.GREY)
        if document["definition"].get("oracle"):
            figure.text(0.995, 0.005, ORACLE_NOTE, ha="right", va="bottom", fontsize="small", color="#A00000")
    return figure


def search_pngs(folder: StudyFolder) -> dict[str, Callable[[], bytes]]:
    """The figures of a search as PNG files by their names, each drawn when called. Empty if the study is no search, or
    no trial is complete."""
    document = read_document(folder)
    if document is None or not complete_trials(document["trials"]):
        return {}
    return {f"search_{kind}.png": partial(png_of, document, kind, folder.name) for kind in SEARCH_KINDS}


def png_of(document: Mapping[str, Any], kind: str, name: str) -> bytes:
    """The figure of a search's document as a PNG; of a kind that cannot be drawn, a picture that says why."""
    import matplotlib as mpl

    try:
        figure = draw_document(document, kind, name)
    except UserError as error:
        figure = style.new_figure(1.2)
        figure.text(0.02, 0.5, str(error), va="center", wrap=True)
    out = io.BytesIO()
    with mpl.rc_context(style.RC):
        figure.savefig(out, format="png")
    return out.getvalue()
