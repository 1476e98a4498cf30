"""A study as a sheet: its rows in groups by stage, pooled and published figures, paired differences and a caption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from analysis.cells.best import BestComparison, is_tied
from analysis.cells.differences import Difference
from analysis.cells.layout import METRICS, Cell, CellKey, Label, Layout
from analysis.cells.unfinished import Unfinished, unfinished
from analysis.rows import stages
from analysis.rows.published_results import PublishedResult, published_caption
from analysis.tables.caption import caption
from analysis.tables.number_style import NumberStyle, styles_of
from analysis.tables.published_rows import published_of, why_none
from analysis.tables.sheet import EMPTY, Entry, Group, Line, Panel, Sheet, column_head
from d2l_study.errors import listed


@dataclass
class TableContent:
    """What a study's table holds, whatever its format."""

    layout: Layout
    differences: dict[Label, list[Difference]]
    """The paired differences of each panel."""
    best: set[CellKey]
    tested: dict[CellKey, BestComparison]
    pooled: Layout | None = None
    """Pooled out-of-fold figures, arranged alike; a repeat is their replicate."""
    published: list[PublishedResult] = field(default_factory=list)
    not_pooled: list[str] = field(default_factory=list)
    """The repeats that lack a fold, and so have no pooled figures."""

    @property
    def all_differences(self) -> list[Difference]:
        """Those of all panels."""
        return [difference for found in self.differences.values() for difference in found]


def study_sheet(content: TableContent) -> Sheet:
    """The table as its reader sees it."""
    return _SheetMaker(content).sheet()


class _SheetMaker:
    def __init__(self, content: TableContent) -> None:
        self.content, self.layout = content, content.layout
        self.styles = styles_of(self.layout, content.all_differences)
        self.drawn: list[PublishedResult] = []
        # Published figures stand beside what is not there yet, too.
        self.lacks_published = why_none(self.layout, content.published) if content.published else ""
        self.published = [] if self.lacks_published else content.published
        self.unfinished = Unfinished() if self.published else unfinished(self.layout)

    def sheet(self) -> Sheet:
        layout, content = self.layout, self.content
        title = f"{layout.study}: {layout.metric.heading}"
        if layout.column_key == METRICS and len(layout.metrics) > 1:
            splits = {metric.split for metric in layout.metrics}
            title = f"{layout.study}{f' ({next(iter(splits))})' if len(splits) == 1 and '' not in splits else ''}"
        said = caption(layout, self.styles, content.all_differences, content.best, content.tested)
        if waiting := self.unfinished.sentence():
            said.beside.insert(0, waiting)
        if content.pooled is not None:
            said.details.append(
                "All folds of a repeat together: one value per repeat, from the stored predictions of all its folds, "
                "mean over repeats with a t interval over repeats (other partitions of the same data: too narrow for "
                "new data). Models of different folds need not agree in scale, which a pooled AUC pays for."
                + (
                    " Repeats of the same folds are averaged and counted once."
                    if content.pooled.averages_repeats
                    else ""
                )
            )
        if content.not_pooled:
            said.beside.append(f"Not pooled: {listed(content.not_pooled, 6)}.")
        panels = [panel for panel in layout.panels if panel not in self.unfinished.panels]
        made = [self._panel(panel) for panel in panels]
        said.beside.extend(published_caption(self.drawn))
        if self.lacks_published:
            said.beside.append(f"Without published figures: {self.lacks_published}.")
        name = f"{layout.study}-{'metrics' if len(layout.metrics) > 1 else layout.metric.name}"
        return Sheet(title, name, made, said)

    def _panel(self, panel: Label) -> Panel:
        waiting = self.unfinished.columns.get(panel, ())
        columns = [column for column in self.layout.columns_of(panel) if column not in waiting]
        groups = grouped_by_stage(self.layout.rows_of(panel), lambda row: self._line(panel, row, columns))
        several = len(groups) > 1
        if self.content.pooled is not None:
            groups += self._pooled(panel, columns)
        groups += self._published(panel, columns)
        found = self.content.differences[panel]
        if found:
            lines = [Line(d.text, [self._difference(d, c) for c in columns]) for d in found]
            heading = "paired differences" if several or len(groups) > 1 else ""
            groups.append(Group(heading, lines, differences=True))
        return Panel(panel, [column_head(panel, column) for column in columns], groups)

    def _line(self, panel: Label, row: Label, columns: list[Label]) -> Line:
        return Line(row, [self._entry((panel, row, column)) for column in columns])

    def _entry(self, cell_key: CellKey) -> Entry:
        cell = self.layout.cells.get(cell_key)
        tied = is_tied(self.content.tested.get(cell_key)) and cell_key not in self.content.best
        return cell_entry(cell, self.styles, best=cell_key in self.content.best, tied=tied)

    def _difference(self, difference: Difference, column: Label) -> Entry:
        interval = difference.by_column.get(column)
        if interval is None or interval.count == 0:
            return EMPTY
        mean, interval_text = self.styles[self.layout.metric_of(column).name].difference(interval)
        return Entry(mean, interval_text, f"({interval.count})", value=interval.mean)

    def _pooled(self, panel: Label, columns: list[Label]) -> list[Group]:
        pooled = self.content.pooled
        if pooled is None or panel not in pooled.panels:
            return []
        lines = []
        for row in pooled.rows_of(panel):
            cells = [pooled.cells.get((panel, row, column)) for column in columns]
            if any(cell is not None and cell.values for cell in cells):
                entries = [
                    cell_entry(cell, self.styles) if cell is not None and cell.values else EMPTY for cell in cells
                ]
                lines.append(Line(row, entries))
        return [Group("all folds of a repeat together", lines)] if lines else []

    def _published(self, panel: Label, columns: list[Label]) -> list[Group]:
        lines = []
        for method, figures in published_of(self.layout, self.published, panel, columns).items():
            self.drawn += [one for one in figures if one is not None]
            lines.append(Line(method, [published_entry(one) for one in figures]))
        return [Group("published, other splits", lines)] if lines else []


def cell_entry(
    cell: Cell | None, styles: Mapping[str, NumberStyle], *, best: bool = False, tied: bool = False
) -> Entry:
    """What stands in the place of a cell."""
    if cell is None or cell.status == "no such metric":
        return EMPTY
    if not cell.values:
        return Entry(state=cell.status)
    style, interval = styles[cell.metric.name], cell.interval
    return Entry(style.mean(interval), style.interval_text(interval), _count(cell), best, tied, value=interval.mean)


def published_entry(one: PublishedResult | None) -> Entry:
    """What stands in the place of a published result; a dash for none."""
    return EMPTY if one is None else Entry(f"{one.value:.3f}", value=one.value)


def _count(cell: Cell) -> str:
    if cell.status == "done":
        return f"({cell.interval.count})"
    runs = f"{len(cell.values)} of {cell.planned_runs}"
    return f"({runs} runs)" if cell.averages_repeats else f"({runs})"


def grouped_by_stage(rows: list[Label], line: Callable[[Label], Line]) -> list[Group]:
    """The lines of the rows under the headings of their stages; one group without a heading if there is only one."""
    groups: dict[str, list[Line]] = {}
    for row in rows:
        groups.setdefault(stages.group_heading(row.stage), []).append(line(row))
    several = len(groups) > 1
    return [Group(heading if several else "", lines) for heading, lines in groups.items()] or [Group("", [])]
