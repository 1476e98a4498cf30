"""The headlines of a report: in each task what validation chose, with its test figure, then the paired differences.

A tie is called a tie. A difference is told apart from 0 by the t test (of folds the corrected one) after Holm's
correction, never by an interval, which is not corrected. Below `LEAST_PAIRS` pairs there is no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from analysis.cells.differences import TO_MATCHED, TO_TEACHER, Difference
from analysis.cells.layout import LEVEL, METRICS, Cell, Label, panel_title
from analysis.cells.model_selection import ranked_by_validation, ties_for_first
from analysis.cells.partitions import unit_noun
from analysis.rows.stages import MATCHED, NO_MATCHED_NOTE, STUDENT, default_metric
from analysis.statistics.paired_tests import LEAST_PAIRS, SIGNIFICANCE_LEVEL, holm
from analysis.tables.comparison import Comparison
from analysis.tables.number_style import NumberStyle, styles_of
from d2l_study.errors import listed

if TYPE_CHECKING:
    import pandas

    from analysis.tables.study_table import Table

MOST_FINDINGS = 8
NOTE = (
    f"Verdicts are of the t test after Holm's correction, at {SIGNIFICANCE_LEVEL:g}: over the comparisons under "
    "Comparisons, and over all students with their teachers, matched ones too, in the first table; below "
    f"{LEAST_PAIRS} pairs there is none. Intervals are not corrected for their number."
)


def findings(made: Table, rows: pandas.DataFrame, compared: Comparison | None = None) -> list[str]:
    """The sentences, the first `MOST_FINDINGS` of them. compared: every arm against the plain one, for the p-values."""
    styles = styles_of(made.layout, (d for found in made.differences.values() for d in found))
    headline = _headline_metric(made, rows)
    lines = [*_chosen(made, rows, styles, headline), *_differences(made, styles, headline, compared)]
    more = len(lines) - MOST_FINDINGS
    found = lines[:MOST_FINDINGS] + ([f"… and {more} more comparisons in the tables below."] if more > 0 else [])
    stages = set(rows["stage"])
    return [*found, NO_MATCHED_NOTE] if STUDENT in stages and MATCHED not in stages else found


def _chosen(made: Table, rows: pandas.DataFrame, styles: Mapping[str, NumberStyle], headline: str) -> Iterator[str]:
    layout, order = made.layout, ranked_by_validation(rows)
    rank = {one: i for i, one in enumerate(zip(order["config_id"], order["method"], strict=True))}
    for panel in layout.panels:
        for column in layout.columns_of(panel):
            if layout.column_key == METRICS and column.value != headline:
                continue
            cells: dict[int, tuple[Label, Cell]] = {}
            for row in layout.rows_of(panel):
                cell = layout.cells.get((panel, row, column))
                if cell is not None and cell.values and (cell.origin.config_id, row.value) in rank:
                    cells[rank[cell.origin.config_id, row.value]] = (row, cell)
            if not cells:
                continue
            competing = order.iloc[sorted(cells)]
            best = [cells[i] for i in sorted(cells)[: ties_for_first(competing)]]
            heading = best[0][1].metric.heading
            figures = []
            for _, cell in best:
                style = styles[cell.metric.name]
                count = cell.interval.count
                of = f"({count} {unit_noun([cell.partition.design], count)})"
                shown = (style.mean(cell.interval), style.interval_text(cell.interval), of)
                figures.append(" ".join(filter(None, shown)))
            names, value = [row.text for row, _ in best], f"{competing['validation'].iloc[0]:.3f}"
            if len(cells) == 1:
                yield f"{_lead(panel, column)}{names[0]}: {heading} {figures[0]}."
            elif len(best) == 1:
                yield (f"{_lead(panel, column)}{names[0]} has the highest validation AUC of {len(cells)}; its "
                       f"{heading}: {figures[0]}.")  # fmt: skip
            else:
                of = f"all {len(cells)}" if len(best) == len(cells) else f"{len(best)} of {len(cells)}"
                each = listed((f"{name} {figure}" for name, figure in zip(names, figures, strict=True)), 4)
                yield (f"{_lead(panel, column)}{of} tie at the highest validation AUC ({value}), so that it chooses "
                       f"none of them; their {heading}: {each}.")  # fmt: skip


def _differences(
    made: Table, styles: Mapping[str, NumberStyle], headline: str, compared: Comparison | None
) -> Iterator[str]:
    layout = made.layout
    shown = [
        (panel, one, column)
        for panel, found in made.differences.items()
        for one in found
        for column, interval in one.by_column.items()
        if interval.count and (layout.column_key != METRICS or layout.metric_of(column).name == headline)
    ]
    p_values = _corrected(shown, compared)
    for panel, one, column in shown:
        interval, metric = one.by_column[column], layout.metric_of(column)
        mean, interval_text = styles[metric.name].difference(interval)
        verdict_text = verdict(p_values.get((one.kind, panel, one.row, column), math.nan), interval.count)
        yield (f"{_lead(panel, column)}{one.text}: {' '.join(filter(None, (mean, interval_text)))} {metric.title} "
               f"({_pairs(interval.count)}); {verdict_text}.")  # fmt: skip


def verdict(p_holm: float, pairs: int) -> str:
    """What a test that was corrected for the number of comparisons says; NaN where there is none."""
    if pairs < LEAST_PAIRS:
        return f"fewer than {LEAST_PAIRS} pairs, no verdict"
    if math.isnan(p_holm):
        return "no verdict, since the pairs have no spread"
    p = "< 0.001" if p_holm < 0.001 else f"= {p_holm:.2g}"
    return f"{'told apart' if p_holm < SIGNIFICANCE_LEVEL else 'not told apart'} (p {p} after Holm)"


def _corrected(
    shown: list[tuple[Label, Difference, Label]], compared: Comparison | None
) -> dict[tuple[str, Label, Label, Label], float]:
    """(kind, panel, row, column) -> p-value after Holm's correction. That of a method is the one of the comparison,
    which a reader finds below; those of students are corrected over all students."""
    found: dict[tuple[str, Label, Label, Label], float] = {}
    there = (
        {(_task(c.panel), c.row, c.column, c.baseline.text): c.p_holm[0] for c in compared.found} if compared else {}
    )
    of_teachers: list[tuple[str, Label, Label, Label]] = []
    p_values: list[float] = []
    for panel, one, column in shown:
        key = (one.kind, panel, one.row, column)
        if one.kind in (TO_MATCHED, TO_TEACHER):
            of_teachers.append(key)
            p_values.append(one.tests[column].p)
        elif (_task(panel), one.row, column, one.baseline) in there:
            found[key] = there[_task(panel), one.row, column, one.baseline]
    return found | dict(zip(of_teachers, holm(p_values), strict=True))


def _task(panel: Label) -> tuple[tuple[str, object], ...]:
    """What a panel is of, without the level of its metrics: a table has a panel for each, a comparison has not."""
    return tuple(key for key in panel.keys if key[0] != LEVEL)


def _headline_metric(made: Table, rows: pandas.DataFrame) -> str:
    names = [metric.name for metric in made.layout.metrics]
    wanted = default_metric(rows)
    return wanted if wanted in names else names[0]


def _lead(panel: Label, column: Label) -> str:
    text = panel_title(panel, column)
    return f"{text}: " if text else ""


def _pairs(number: int) -> str:
    return f"{number} pair{'' if number == 1 else 's'}"
