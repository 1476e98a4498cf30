"""The report of a study: one HTML file with its tables, tests, figures, failures and provenance, from stored results.

    python -m analysis report vat_quick --out report.html

The file needs no network and no other file. Of studies with many settings, and of searches, tables and figures show
for each arm and task the configuration that validation chose (`cells.model_selection`); all rows are in `export`.
"""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.cells.best import TASK_KEYS
from analysis.cells.differences import plain_arm
from analysis.cells.hardware import hardware_differences_of_rows
from analysis.cells.model_selection import selected_rows
from analysis.report import figure_section, sections
from analysis.report import html_elements as html
from analysis.report.findings import findings, headline_metric, verdict_note
from analysis.report.html_elements import Section
from analysis.report.mlflow_links import find_mlflow_links
from analysis.rows.output_files import writable_path, writing
from analysis.rows.stages import STUDENT
from analysis.rows.study_folders import FOLDERS, folders_of
from analysis.tables.caption import no_interval_sentences
from analysis.tables.number_style import NO_INTERVAL
from d2l_study.errors import UserError

if TYPE_CHECKING:
    import pandas

    from analysis.cells.layout import Layout
    from analysis.tables.comparison import Comparison
    from analysis.tables.study_table import Table
    from d2l_study.study.ledger.study_folder import StudyFolder

NAME = "report.html"
"""Of the file in the study's folder and in MLflow."""
SUFFIXES = (".html",)
SHOWN_WHOLE_UP_TO = 60
"""Configurations that are all shown; of more, those that validation chose."""

MOST_DRAWN = 1_000_000
"""Test instances of all runs up to which images are drawn for a report: under a minute."""


def write_report(rows: pandas.DataFrame, out: str | Path, *, root: str = "runs", uri: str | None = None) -> Path:
    """Write the report of one study's rows (`analysis.load`); returns its path.

    root: as given to `load`, for the commands that the report names; uri: MLflow's address, for links to its pages
    UserError for rows of several studies, or a path that cannot be written.
    """
    path = writable_path(out, SUFFIXES)
    text = make_report(rows, root=root, uri=uri)
    with writing(path) as place:
        place.write_text(text, encoding="utf-8")
    return path


def make_report(rows: pandas.DataFrame, *, root: str = "runs", uri: str | None = None) -> str:
    """The report as one HTML document; arguments and errors as of `write_report`."""
    names = list(dict.fromkeys(str(name) for name in rows["study"].dropna()))
    if len(names) != 1:
        raise UserError(f"a report is about one study, found {len(names)}: {', '.join(names)}")
    folder = folders_of(rows)[names[0]] if rows.attrs.get(FOLDERS) else None
    pages = find_mlflow_links(names[0], uri)
    shown, reduced = shown_rows(rows, folder)
    tables = _tables(shown) if _has_results(shown) else []
    description = ""
    if folder is not None:
        description = str(folder.resolved().get("space", {}).get("description") or "")
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    headline = headline_metric(tables[0], rows) if tables else ""
    compared = _compared(shown, tables[0].layout, headline) if tables else None
    students = _students_compared(shown, headline) if tables else None
    parts = [
        _summary(rows, tables, reduced, folder, compared if not isinstance(compared, str) else None),
        Section("Tables", _table_pieces(tables, reduced)),
        Section("Comparisons", _comparison_pieces(compared, students)),
        Section("Instances in the test images", _image_pieces(shown, root) if tables else []),
        Section("Figures", figure_section.study_figures(rows, shown, folder) if tables else []),
        Section("Best trials by validation", sections.best_trials(rows, pages)),
        Section("Score maps of tissue", figure_section.score_maps(rows, folder)),
        Section("Failures", sections.failures(rows, folder, root)),
        Section("Provenance", sections.provenance(rows, folder, pages)),
    ]
    return html.document(
        f"Study {names[0]}", description, f"Report made {now} from stored results; nothing was trained.", parts
    )


def shown_rows(rows: pandas.DataFrame, folder: StudyFolder | None) -> tuple[pandas.DataFrame, bool]:
    """The rows that tables and figures of a report show, and whether they are only those that validation chose, as of a
    search or a large study. folder: of the study, None where it is not known."""
    reduced = _is_large(rows, folder)
    shown = selected_rows(rows) if reduced else rows
    if shown.empty:  # nothing has a validation AUC yet
        shown = rows.head(0) if reduced else rows
    return shown, reduced


def _is_large(rows: pandas.DataFrame, folder: StudyFolder | None) -> bool:
    """Whether tables and figures show chosen configurations only."""
    if folder is not None and folder.storage.exists(f"{folder.key}/search.json"):
        return True
    return bool(rows["config_id"].nunique() > SHOWN_WHOLE_UP_TO and _has_several_settings(rows))


def _has_several_settings(rows: pandas.DataFrame) -> bool:
    keys = ["stage", "method", *(key for key in TASK_KEYS if key in rows)]
    each = rows.drop_duplicates(["config_id", "method"]).groupby(keys, dropna=False).size()
    return bool((each > 1).any())


def _has_results(rows: pandas.DataFrame) -> bool:
    return bool((rows["status"] == "done").any())


def _summary(
    rows: pandas.DataFrame,
    tables: list[Table],
    reduced: bool,
    folder: StudyFolder | None,
    compared: Comparison | None,
) -> Section:
    pieces = [sections.run_counts(rows)]
    pieces += [html.paragraph(text) for text in sections.state_sentences(rows)]
    if folder is not None and figure_section.is_oracle_search(folder):
        pieces.append(html.paragraph("† ORACLE: this search looked at true instance labels, which nothing else may "
                                     "see; not a result of weak labels."))  # fmt: skip
    pieces += [html.paragraph(text) for text in hardware_differences_of_rows(rows)]
    if tables:
        lines, layout = findings(tables[0], rows, compared), tables[0].layout
        pieces.append(html.bullet_list(lines))
        intervals = [cell.interval for cell in layout.cells.values()]
        intervals += [interval for one in tables[0].all_differences for interval in one.by_column.values()]
        void = no_interval_sentences(intervals) if any(NO_INTERVAL in line for line in lines) else []
        pieces.append(html.paragraph(" ".join([
            f"Mean with its 95 % interval over {layout.units_text}, count in brackets.", *void,
            what_was_chosen(layout.snapshots_chosen, reduced),
            _spread(layout), *verdict_note(tables[0]),
        ]), "note"))  # fmt: skip
    elif not _has_results(rows):
        pieces.append(html.paragraph("No run is finished: there is nothing to show yet."))
    pieces.append("<h3>What was studied</h3>" + html.fact_table(sections.study_facts(rows)))
    return Section("Summary", pieces)


def _spread(layout: Layout) -> str:
    """Over what an interval is."""
    over = ["folds"] if layout.has_folds else []
    over += ["initialisations"] if "split" in layout.designs else []
    over += ["bags and initialisations"] if "drawn" in layout.designs or not over else []
    return f"The spread is over {' and '.join(over)} of these data, not over data sets."


def what_was_chosen(snapshots: bool | None, configurations: bool) -> str:
    """What validation bags chose: the snapshots of runs (None: not known), the configurations that are shown."""
    chosen = ["the snapshots of the runs"] if snapshots else []
    chosen += ["which configurations are shown"] if configurations else []
    if chosen:
        return f"Validation bags chose {' and '.join(chosen)}; test figures chose nothing."
    if snapshots is None:
        return "Test figures chose nothing."
    return "Nothing was chosen: each run is taken at its last step, and every configuration is shown."


def _tables(rows: pandas.DataFrame) -> list[Table]:
    """The table that the kind of study asks for, then that of the other level; for folds one holds both."""
    from analysis.cells.layout import METRICS, default_columns
    from analysis.rows.stages import default_metric
    from analysis.tables.study_table import table

    if default_columns(rows) == METRICS:
        return [table(rows, pooled=_pooled(rows))]
    first = default_metric(rows)
    others = [
        name for name in ("bag_auc", "instance_auc") if name != first and name in rows and rows[name].notna().any()
    ]
    return [table(rows, name) for name in (first, *others)]


def _pooled(rows: pandas.DataFrame) -> pandas.DataFrame | None:
    """Pooled out-of-fold rows where there are predictions."""
    if not rows.attrs.get(FOLDERS) or "fold" not in rows or rows["fold"].isna().all():
        return None
    from analysis.cells.out_of_fold import pooled_rows

    try:
        return pooled_rows(rows)
    except UserError:
        return None


def _image_pieces(rows: pandas.DataFrame, root: str) -> list[str]:
    """The metrics of instances with intervals over images, where bags are given and predictions are there."""
    from analysis.cells.layout import has_given_bags
    from analysis.tables.html import html_fragment
    from analysis.tables.image_table import image_table

    if not rows.attrs.get(FOLDERS) or not has_given_bags(rows):
        return []
    if "test_instances" in rows and rows["test_instances"].sum() > MOST_DRAWN:
        where = "" if root == "runs" else f" --root {shlex.quote(root)}"
        command = f"d2l tables {rows.attrs['study']} --intervals images{where}"
        return [html.paragraph(html.Text(f"Too many for a report: {html.code(command).html}"), "note")]
    try:
        made = image_table(rows)
    except UserError:
        return []
    return [html_fragment(made.sheet())] if made.found else []


def _table_pieces(tables: list[Table], reduced: bool) -> list[str]:
    from analysis.tables.html import html_fragment

    if not tables:
        return []
    text = "Click a heading to sort by it." + (
        " Of each arm and task the configuration with the highest mean validation AUC is shown (of several that tie, "
        "the first planned)."
        if reduced
        else ""
    )
    pieces = [
        html.paragraph(html.Text(f'<span class="screen">{text.split(".")[0]}.</span>{text.partition(".")[2]}'), "note")
    ]
    return [*pieces, *(html_fragment(made.sheet()) for made in tables)]


def _compared(rows: pandas.DataFrame, layout: Layout, metric: str) -> Comparison | str | None:
    """Every arm against the plain one, of the same stage, tested in the metric of the summary, whose verdicts it bears;
    None for a single arm, and why where nothing can be compared."""
    from analysis.tables.comparison import compare

    baseline = plain_arm(layout) or next(iter(rows["method"].dropna()), None)
    mine = rows[rows["stage"].isin(rows.loc[rows["method"] == baseline, "stage"])]
    mine.attrs = rows.attrs
    if mine["method"].nunique() < 2:
        return None
    try:
        return compare(mine, {"method": str(baseline)}, metric)
    except UserError as error:
        return f"No paired comparison with {str(error).removeprefix('--baseline ')}."


def _students_compared(rows: pandas.DataFrame, metric: str) -> Comparison | None:
    """Students against their teachers and controls, in the metric of the summary; None where there is none."""
    from analysis.tables.comparison import compare

    if not (rows["stage"] == STUDENT).any():
        return None
    try:
        return compare(rows, metric=metric, controls=True)
    except UserError:
        return None


def _comparison_pieces(compared: Comparison | str | None, students: Comparison | None) -> list[str]:
    """The comparison of arms, and that of students with their teachers and controls."""
    from analysis.tables.html import html_fragment

    pieces = [] if compared is None else [
        html.paragraph(compared, "note") if isinstance(compared, str) else html_fragment(compared.sheet())
    ]  # fmt: skip
    return pieces + ([html_fragment(students.sheet())] if students is not None else [])
