"""A study as a table, in the layouts of the slides and papers.

Drawn bags (MNIST): methods against the number of bags, a panel per bag size. Folds of given bags (colon, breast):
methods against metrics, a panel for bags and one for instances, with pooled out-of-fold figures below.

0.952 ± 0.021 (5)          mean, half-width of the 95 % interval, count of replicates
0.952 [0.921, 0.971] (5)   the same with both bounds, where intervals are visibly asymmetric
0.952 ± 0.021 (4 of 5)     one of five replicates is not there

In a distillation study teachers, students and references are groups of rows, and students are also compared with
their teachers, with the teachers that are matched to them in training and with themselves without soft labels. The best
of a column is bold; from 10 replicates on, what a test cannot tell from it is marked (`cells.best`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.cells.arrange import arrange
from analysis.cells.best import best_cells, compare_with_best
from analysis.cells.differences import differences
from analysis.cells.layout import METRICS, default_columns, default_panel
from analysis.cells.partitions import NOT_POOLED
from analysis.rows.metrics import histology_metrics
from analysis.rows.published_results import published_results
from analysis.tables.formatted import FormattedTable
from analysis.tables.long_form import long_csv, long_frame
from analysis.tables.number_style import styles_of
from analysis.tables.options import AUTO, check_format
from analysis.tables.sheet import Sheet
from analysis.tables.study_sheet import TableContent, study_sheet

if TYPE_CHECKING:
    import pandas


class Table(TableContent, FormattedTable):
    """The table of a study; shows itself in a notebook."""

    def sheet(self) -> Sheet:
        """Groups of rows by stage, differences and caption."""
        return study_sheet(self)

    def frame(self) -> pandas.DataFrame:
        """Long form: one row per planned cell and per paired difference."""
        return long_frame(self)

    def csv(self) -> str:
        """`frame` as CSV."""
        return long_csv(self)


def table(
    rows: pandas.DataFrame,
    metric: str | Sequence[str] | None = None,
    *,
    row_key: str = "method",
    column_key: str = AUTO,
    panel_key: str | None = AUTO,
    test_train_ratio: float | None = None,
    pooled: pandas.DataFrame | None = None,
    with_published: bool = False,
) -> Table:
    """The table of a study's rows (`analysis.load`), of one or several studies.

    metric: by default the instance AUC where the study has students, the bag AUC otherwise; where the columns are
        metrics, those of the histology tables
    column_key, panel_key: a key, `METRICS` for the columns, None for no panels, by default what `layout` says
    test_train_ratio: of folds; by default that of the bags that the runs tested and trained on
    pooled: pooled out-of-fold rows (`out_of_fold.pooled_rows`)
    with_published: with the published figures of the same data sets, which differ in protocol
    UserError for an unknown metric or key.
    """
    metrics = metric if metric is None or isinstance(metric, str) else [*metric]
    if isinstance(metrics, list) and len(metrics) == 1:
        metrics = metrics[0]
    automatic = METRICS if isinstance(metrics, list) else default_columns(rows)
    columns = automatic if column_key == AUTO else column_key
    # What was asked for by name is not to be guessed on another axis.
    panel = default_panel(rows) if panel_key == AUTO else panel_key
    panel = None if panel_key == AUTO and panel in (row_key, columns) else panel
    if columns == METRICS and metrics is None:
        metrics = histology_metrics(rows) or None
    layout = arrange(rows, metrics, row_key, columns, panel, test_train_ratio=test_train_ratio)
    made = Table(layout, {one: differences(layout, one) for one in layout.panels}, set(), compare_with_best(layout))
    styles = styles_of(layout, made.all_differences)
    made.best = best_cells(layout, lambda cell: styles[cell.metric.name].rounded(cell.interval))
    if pooled is not None and columns == METRICS:
        made.not_pooled = list(pooled.attrs.get(NOT_POOLED, ()))
        names = [m.name for m in layout.metrics]
        if not pooled.empty and any(name in pooled for name in names):
            lacking = {name: math.nan for name in names if name not in pooled}
            made.pooled = arrange(pooled.assign(**lacking), names, row_key, columns, panel, by_study=layout.by_study)
    if with_published:
        made.published = published_results(layout.datasets)
    return made


def render(
    rows: pandas.DataFrame,
    metric: str | Sequence[str] | None = None,
    format: str = "markdown",
    *,
    row_key: str = "method",
    column_key: str = AUTO,
    panel_key: str | None = AUTO,
) -> str:
    """The table of a study's rows as text: markdown (aligned, for terminals too), latex (booktabs), html (a page of
    its own) or csv (long: one row per cell and difference). Arguments and errors as of `table`."""
    check_format(format)
    return table(rows, metric, row_key=row_key, column_key=column_key, panel_key=panel_key).text(format)
