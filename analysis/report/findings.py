"""The headlines of a report: the best setting of each arm that has several, on validation, with its test figure, then
the paired differences.

A tie is called a tie. A difference is told apart from 0 by the t test (of folds the corrected one) after Holm's
correction, never by an interval, which is not corrected. Below `LEAST_PAIRS` pairs there is no verdict.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from analysis.cells.best import TASK_KEYS
from analysis.cells.differences import OF_STUDENTS, TO_TEACHER, Difference
from analysis.cells.layout import LEVEL, METRICS, Cell, Label, panel_title
from analysis.cells.model_selection import TIE, ranked_by_validation, ties_for_first
from analysis.cells.partitions import unit_noun
from analysis.rows.stages import MATCHED, NO_MATCHED_NOTE, STUDENT, TEACHER, default_metric
from analysis.statistics.intervals import Interval
from analysis.statistics.paired_tests import LEAST_PAIRS, SIGNIFICANCE_LEVEL, holm
from analysis.tables.comparison import Comparison
from analysis.tables.number_style import NumberStyle, styles_of
from d2l_study.errors import listed

if TYPE_CHECKING:
    import pandas

    from analysis.tables.study_table import Table

MOST_FINDINGS = 8
"""Differences that are told."""
MOST_SETTINGS = 4
"""Best settings of arms that are told; more would push the differences off the first page."""


def verdict_note(made: Table) -> list[str]:
    """What the verdicts of `findings` are: sentences, none where nothing is compared."""
    of_students = any(one.kind in OF_STUDENTS for one in made.all_differences)
    of_arms = any(one.kind not in OF_STUDENTS for one in made.all_differences)
    over = ["all comparisons of arms"] if of_arms else []
    over += ["all comparisons of students"] if of_students else []
    if not over:
        return []
    apart = " Arms and students are corrected apart." if len(over) > 1 else ""
    return [
        f"“Told apart”: the paired t test has p < {SIGNIFICANCE_LEVEL:g} after Holm's correction for the number of "
        f"tests ({'; '.join(over)}, under Comparisons).{apart}",
        f"Fewer than {LEAST_PAIRS} pairs bear no verdict.",
        "Intervals are not corrected.",
    ]


def findings(made: Table, rows: pandas.DataFrame, compared: Comparison | None = None) -> list[str]:
    """The sentences, the first few of each kind. compared: every arm against the plain one, for the p-values."""
    styles = styles_of(made.layout, (d for found in made.differences.values() for d in found))
    headline = headline_metric(made, rows)
    found = [
        *_at_most(MOST_SETTINGS, [*_chosen(made, rows, styles, headline)], "more arms and tasks, under Best trials."),
        *_some_of_each_kind([*_differences(made, styles, headline, compared)]),
    ]  # fmt: skip
    of_teachers = any(one.kind == TO_TEACHER for one in made.all_differences)
    return [*found, NO_MATCHED_NOTE] if of_teachers and MATCHED not in set(rows["stage"]) else found


def _at_most(most: int, lines: list[str], rest: str) -> list[str]:
    """The first `most` of them, and how many more there are."""
    more = len(lines) - most
    return lines[:most] + ([f"… and {more} {rest}"] if more > 0 else [])


def _some_of_each_kind(lines: list[tuple[str, str]]) -> list[str]:
    """At most `MOST_FINDINGS` of (kind, sentence), in their order, with a like part for each kind: of many students the
    first kind would leave no room for the others."""
    part = MOST_FINDINGS // max(1, len({kind for kind, _ in lines}))
    counts: Counter[str] = Counter()
    first: list[int] = []
    others: list[int] = []
    for i, (kind, _) in enumerate(lines):
        counts[kind] += 1
        (first if counts[kind] <= part else others).append(i)
    shown = sorted([*first, *others][:MOST_FINDINGS])
    more = len(lines) - len(shown)
    found = [lines[i][1] for i in shown]
    return found + ([f"… and {more} more comparisons in the tables below."] if more > 0 else [])


def _chosen(made: Table, rows: pandas.DataFrame, styles: Mapping[str, NumberStyle], headline: str) -> Iterator[str]:
    """Of each arm that was trained with several settings, which of them is the best on validation, with its test
    figure; of a task with a single result that one. Arms are never ranked by validation against each other, and
    controls not at all: nothing chooses between them."""
    layout, order = made.layout, ranked_by_validation(rows).reset_index(drop=True)
    arm_keys = ["stage", "method", *(key for key in TASK_KEYS if key in order)]
    settings = dict(iter(order.groupby(arm_keys, sort=False, dropna=False).ngroup().items()))
    place = {one: i for i, one in enumerate(zip(order["config_id"], order["method"], strict=True))}
    for panel in layout.panels:
        for column in layout.columns_of(panel):
            if layout.column_key == METRICS and column.value != headline:
                continue
            cells: dict[int, tuple[Label, Cell]] = {}
            for row in layout.rows_of(panel):
                cell = layout.cells.get((panel, row, column))
                if cell is not None and cell.values and (cell.origin.config_id, row.value) in place:
                    cells[place[cell.origin.config_id, row.value]] = (row, cell)
            lead = _lead(panel, column)
            for arm in dict.fromkeys(settings[i] for i in cells):
                rivals = order[order.index.map(settings) == arm]
                shown = {i: cells[i] for i in rivals.index if i in cells}
                if len(rivals) > 1 and rivals["stage"].iloc[0] in (TEACHER, STUDENT):
                    yield lead + _best_setting(rivals, shown, styles)
                elif len(cells) == 1:
                    row, cell = cells[rivals.index[0]]
                    yield f"{lead}{row.text}: {cell.metric.heading} {_figure(cell, styles)}."


def _best_setting(
    rivals: pandas.DataFrame, shown: Mapping[int, tuple[Label, Cell]], styles: Mapping[str, NumberStyle]
) -> str:
    """Which of the settings of one arm is the best on validation. rivals: they, best first (`ranked_by_validation`);
    shown: those that stand in the table, of a large study only the first."""
    ties = ties_for_first(rivals)
    best = {i: shown[i] for i in rivals.index[:ties] if i in shown}
    first, one = rivals.iloc[0], next(iter((best or shown).values()))
    names = {i: _name_of_setting(row, str(rivals.loc[i, "trial_id"])) for i, (row, _) in best.items()}
    heading, arm = one[1].metric.heading, one[0].names.arm(str(first["method"]))
    whole = " of those with all their runs" if rivals["validation"].max() > first["validation"] + TIE else ""
    figures = {i: _figure(cell, styles) for i, (_, cell) in best.items()}
    if not best:
        return f"the best of the {len(rivals)} settings of {arm} on validation has no {heading}."
    if ties == 1:
        (name,), (figure,) = names.values(), figures.values()
        return (f"of the {len(rivals)} settings of {arm}, {name} has the highest validation AUC{whole}; its {heading}: "
                f"{figure}.")  # fmt: skip
    tie = (f"{'all' if ties == len(rivals) else f'{ties} of the'} {len(rivals)} settings of {arm} tie at the highest "
           f"validation AUC{whole} ({first['validation']:.3f})")  # fmt: skip
    if len(best) < ties:
        (name, figure), *_ = zip(names.values(), figures.values(), strict=True)
        return f"{tie}; the first planned is shown, {name}; its {heading}: {figure}."
    each = listed((f"{names[i]} {figures[i]}" for i in best), 4)
    return f"{tie}, so that it chooses none of them; their {heading}: {each}."


def _name_of_setting(row: Label, trial: str) -> str:
    """A row by its text; by its trial where a large study shows one setting of each arm, which the row does not say."""
    return row.text if row.keys else f"trial {trial}"


def _figure(cell: Cell, styles: Mapping[str, NumberStyle]) -> str:
    style, count = styles[cell.metric.name], cell.interval.count
    of = f"({count} {unit_noun([cell.partition.design], count)})"
    return " ".join(filter(None, (style.mean(cell.interval), style.interval_text(cell.interval), of)))


def _differences(
    made: Table, styles: Mapping[str, NumberStyle], headline: str, compared: Comparison | None
) -> Iterator[tuple[str, str]]:
    """The kind of each difference, and its sentence."""
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
        verdict_text = verdict(p_values.get((one.kind, panel, one.row, column)), interval)
        yield (
            one.kind,
            (
                f"{_lead(panel, column)}{one.text}: {' '.join(filter(None, (mean, interval_text)))} {metric.title} "
                f"({_pairs(interval.count)}); {verdict_text}."
            ),
        )


def verdict(p_holm: float | None, difference: Interval) -> str:
    """What a test of a difference that was corrected for the number of comparisons says; p_holm: NaN where the test
    has none, None where the difference is not among those that are tested."""
    if difference.count < LEAST_PAIRS:
        return f"fewer than {LEAST_PAIRS} pairs, no verdict"
    if p_holm is None:
        return "no verdict, since it is not among the tests"
    if math.isnan(p_holm):
        why = "the pairs have no spread" if math.isfinite(difference.mean) else "a value is not finite"
        return f"no verdict, since {why}"
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
        if one.kind in OF_STUDENTS:
            of_teachers.append(key)
            p_values.append(one.tests[column].p)
        elif (_task(panel), one.row, column, one.baseline) in there:
            found[key] = there[_task(panel), one.row, column, one.baseline]
    return found | dict(zip(of_teachers, holm(p_values), strict=True))


def _task(panel: Label) -> tuple[tuple[str, object], ...]:
    """What a panel is of, without the level of its metrics: a table has a panel for each, a comparison has not."""
    return tuple(key for key in panel.keys if key[0] != LEVEL)


def headline_metric(made: Table, rows: pandas.DataFrame) -> str:
    """The metric that the findings are about: what the study is about, if the table has it. rows: of the study, all."""
    names = [metric.name for metric in made.layout.metrics]
    return next((name for name in (default_metric(rows), "bag_auc") if name in names), names[0])


def _lead(panel: Label, column: Label) -> str:
    text = panel_title(panel, column)
    return f"{text}: " if text else ""


def _pairs(number: int) -> str:
    return f"{number} pair{'' if number == 1 else 's'}"
