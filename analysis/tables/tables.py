"""A study as a table, in the layouts of the slides and papers.

Drawn bags (MNIST): methods against the number of bags, a panel per bag size. Folds of given bags (colon, breast):
methods against metrics, a panel for bags and one for instances, with pooled out-of-fold figures below.

0.952 ± 0.021 (5)          mean, half-width of the 95 % interval, count of replicates
0.952 [0.921, 0.971] (5)   the same with both bounds, where intervals are visibly asymmetric
0.952 ± 0.021 (4 of 5)     one of five replicates is not there

In a distillation study teachers, students and references are groups of rows, and students are also compared with
their teachers. The best of a column is bold; from 10 replicates on, what a test cannot tell from it is marked (`best`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from analysis.cells.arrange import arrange
from analysis.cells.best import Place, ToBest, best_cells, is_tied, versus_best
from analysis.cells.differences import Difference, differences
from analysis.cells.layout import LEVEL, METRICS, Cell, Label, Layout, default_columns, default_panel
from analysis.cells.partitions import NOT_POOLED
from analysis.rows import published, stages
from analysis.rows.metrics import histology_metrics
from analysis.tables.caption import caption
from analysis.tables.html import html_fragment, write_html
from analysis.tables.latex import write_latex
from analysis.tables.long_form import long_csv, long_frame
from analysis.tables.markdown import write_markdown
from analysis.tables.number_style import NumberStyle, styles_of
from analysis.tables.sheet import NOTHING, Entry, Group, Head, Line, Panel, Sheet
from d2l_study.errors import UserError, listed, nearest

if TYPE_CHECKING:
    import pandas

FORMATS = ("markdown", "csv", "latex", "html", "parquet")
SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".html": "html", ".parquet": "parquet"}
NO_TEXT = "format 'parquet': is no text; write it with .frame().to_parquet(FILE)"
AUTO = "auto"
"""The axis that the kind of study asks for."""


@dataclass
class Table:
    """A table with all that its formats are written from."""

    layout: Layout
    compared: dict[Label, list[Difference]]
    """The differences of each panel."""
    best: set[Place]
    tested: dict[Place, ToBest]
    pooled: Layout | None = None
    """Pooled out-of-fold figures, arranged alike; a repeat is their replicate."""
    published: list[published.Published] = field(default_factory=list)
    not_pooled: list[str] = field(default_factory=list)
    """The repeats that lack a fold, and so have no pooled figures."""

    def sheet(self) -> Sheet:
        return _Writer(self).sheet()

    def frame(self) -> pandas.DataFrame:
        """Long form: one row per planned cell and per paired difference."""
        return long_frame(self)

    def text(self, format: str = "markdown") -> str:
        """The table as text that ends with a newline. UserError for an unknown format, or parquet, which is none."""
        check_format(format)
        if format == "csv":
            return long_csv(self)
        if format == "parquet":
            raise UserError(NO_TEXT)
        return {"markdown": write_markdown, "latex": write_latex, "html": write_html}[format](self.sheet())

    def _repr_html_(self) -> str:
        from analysis.tables.html import STYLE

        return f"<style>{STYLE}</style>{html_fragment(self.sheet())}"


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
    compared = {one: differences(layout, one) for one in layout.panels}
    styles = styles_of(layout, (d for found in compared.values() for d in found))
    best = best_cells(layout, lambda cell: styles[cell.metric.name].rounded(cell.interval))
    below, lost = None, list[str]()
    if pooled is not None and columns == METRICS:
        lost = list(pooled.attrs.get(NOT_POOLED, ()))
        names = [m.name for m in layout.metrics]
        if not pooled.empty and any(name in pooled for name in names):
            lacking = {name: math.nan for name in names if name not in pooled}
            below = arrange(pooled.assign(**lacking), names, row_key, columns, panel)
    figures = published.figures(layout.datasets) if with_published else []
    return Table(layout, compared, best, versus_best(layout), below, figures, lost)


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


def check_format(format: str) -> None:
    if format not in FORMATS:
        raise UserError(f"format {format!r}: not known{nearest(str(format), FORMATS)} (formats: {', '.join(FORMATS)})")


class _Writer:
    """Makes the sheet of a table."""

    def __init__(self, made: Table) -> None:
        self.made, self.layout = made, made.layout
        self.compared = [d for found in made.compared.values() for d in found]
        self.styles = styles_of(self.layout, self.compared)

    def sheet(self) -> Sheet:
        layout, made = self.layout, self.made
        title = f"{layout.study}: {layout.metric.heading}"
        if layout.column_key == METRICS and len(layout.metrics) > 1:
            splits = {metric.split for metric in layout.metrics}
            title = f"{layout.study}{f' ({next(iter(splits))})' if len(splits) == 1 and '' not in splits else ''}"
        sentences = caption(layout, self.styles, self.compared, made.best, made.tested)
        if made.pooled is not None:
            sentences.append(
                "Pooled out of fold: one value per repeat from the stored predictions of all its folds together, mean "
                "over repeats with a t interval over repeats (other partitions of the same data: too narrow for new "
                "data). Models of different folds need not agree in scale, which a pooled AUC pays for."
                + (" Repeats of the same folds are averaged and counted once." if made.pooled.averages else "")
            )
        if made.not_pooled:
            sentences.append(f"Not pooled: {listed(made.not_pooled, 6)}.")
        sentences += published.caption(made.published)
        name = f"{layout.study}-{'metrics' if len(layout.metrics) > 1 else layout.metric.name}"
        return Sheet(title, name, [self._panel(panel) for panel in layout.panels], sentences)

    def _panel(self, panel: Label) -> Panel:
        columns = self.layout.columns_of(panel)
        groups = [
            Group(heading, [self._line(panel, row, columns) for row in rows])
            for heading, rows in _grouped(self.layout.rows_of(panel))
        ]
        several = len(groups) > 1
        if self.made.pooled is not None:
            groups += self._pooled(panel, columns)
        if self.made.published:
            groups += self._published(panel, columns)
        found = self.made.compared[panel]
        if found:
            lines = [Line(d.text, [self._difference(d, c) for c in columns]) for d in found]
            heading = "paired differences" if several or len(groups) > 1 else ""
            groups.append(Group(heading, lines, differences=True))
        return Panel(panel, [column_head(panel, column) for column in columns], groups)

    def _line(self, panel: Label, row: Label, columns: list[Label]) -> Line:
        return Line(row, [self._entry((panel, row, column)) for column in columns])

    def _entry(self, place: Place) -> Entry:
        cell = self.layout.cells.get(place)
        tied = is_tied(self.made.tested.get(place)) and place not in self.made.best
        return entry(cell, self.styles, best=place in self.made.best, tied=tied)

    def _difference(self, difference: Difference, column: Label) -> Entry:
        interval = difference.by_column.get(column)
        if interval is None or interval.count == 0:
            return NOTHING
        mean, around = self.styles[self.layout.metric_of(column).name].difference(interval)
        count = "" if interval.kind == "not estimable" else f"({interval.count})"
        return Entry(mean, around, count, value=interval.mean)

    def _pooled(self, panel: Label, columns: list[Label]) -> list[Group]:
        pooled = self.made.pooled
        if pooled is None or panel not in pooled.panels:
            return []
        lines = []
        for row in pooled.rows_of(panel):
            cells = [pooled.cells.get((panel, row, column)) for column in columns]
            if any(cell is not None and cell.values for cell in cells):
                entries = [entry(cell, self.styles) if cell is not None and cell.values else NOTHING for cell in cells]
                lines.append(Line(row, entries))
        return [Group("pooled out of fold, by repeat", lines)] if lines else []

    def _published(self, panel: Label, columns: list[Label]) -> list[Group]:
        if panel.key == "dataset":
            there = [one for one in self.made.published if one.dataset == panel.value]
        else:
            there = self.made.published if len(self.layout.datasets) == 1 else []
        names = [self.layout.metric_of(column).name for column in columns]
        lines = []
        for method in dict.fromkeys(one.method for one in there):
            values = {one.column: one for one in there if one.method == method}
            entries = [published_entry(values.get(name)) for name in names]
            if any(one is not NOTHING for one in entries):
                lines.append(Line(method, entries))
        return [Group("published, other splits", lines)] if lines else []


def entry(cell: Cell | None, styles: dict[str, NumberStyle], *, best: bool = False, tied: bool = False) -> Entry:
    """What stands in the place of a cell."""
    if cell is None or cell.status == "no such metric":
        return NOTHING
    if not cell.values:
        return Entry(state=cell.status)
    style, interval = styles[cell.metric.name], cell.interval
    return Entry(style.mean(interval), style.around(interval), _count(cell), best, tied, value=interval.mean)


def published_entry(one: published.Published | None) -> Entry:
    return NOTHING if one is None else Entry(f"{one.value:.3f}", value=one.value)


def column_head(panel: Label, column: Label) -> Head:
    """A metric by its title, without the level that the panel says."""
    if column.key != METRICS:
        return column
    title = column.text
    level = dict(panel.keys).get(LEVEL)
    return title.removeprefix(f"{level} ") if level else title


def _count(cell: Cell) -> str:
    if cell.status == "done":
        return f"({cell.interval.count})"
    runs = f"{len(cell.values)} of {cell.planned_runs}"
    return f"({runs} runs)" if cell.averages else f"({runs})"


def _grouped(rows: list[Label]) -> list[tuple[str, list[Label]]]:
    """The rows under the headings of their stages; one group without a heading if there is only one."""
    groups: dict[str, list[Label]] = {}
    for row in rows:
        groups.setdefault(stages.group(row.stage), []).append(row)
    return [*groups.items()] if len(groups) > 1 else [("", rows)]
