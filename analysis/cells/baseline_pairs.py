"""Which rows of a layout are compared with which baseline: the pairs that `compare` tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from analysis.cells.differences import OF_STUDENTS, OTHER_SIDE, baseline_for
from analysis.cells.layout import Cell, Label, Layout, setting_value_text
from analysis.cells.other_bags import share_bags
from analysis.cells.student_controls import StudentControls, repeats_teacher
from analysis.rows import stages
from analysis.statistics.intervals import Interval
from analysis.statistics.paired_tests import TestResult
from d2l_study.errors import listed, nearest


class Pair(NamedTuple):
    """A row and its baseline in one panel and column, with the cells of both."""

    panel: Label
    row: Label
    column: Label
    baseline: Label
    cell: Cell
    baseline_cell: Cell


@dataclass(frozen=True)
class CellComparison:
    """What the tests say of one pair."""

    panel: Label
    row: Label
    column: Label
    baseline: Label
    mean: float
    baseline_mean: float
    """Over the common replicates; of `delong` and `clusters` the AUCs of the two models."""
    difference: Interval
    tests: tuple[TestResult, ...]
    p_holm: tuple[float, ...] = ()
    """For each of the tests, corrected over all comparisons."""
    replicate: int | None = None
    """Of `delong` and `clusters`, which compare two models of one replicate."""
    units: str = ""
    """What the test counted: `500 + 500 bags`."""
    config_id: str = ""
    baseline_config_id: str = ""
    """Of the configurations of both."""


def baseline_pairs(layout: Layout, baseline: Mapping[str, str], notes: list[str]) -> Iterator[Pair]:
    """Every row with its baseline, in each panel and column that both have, also where the bags of all are others; the
    oracle is left out.

    baseline: values of keys that name it. notes: gets a sentence for the rows that have none or several.
    """
    unclear, alone = set(), dict[str, None]()
    for panel in layout.panels:
        rows = layout.rows_of(panel)
        baselines = [row for row in rows if _is_named(row, baseline)]
        for row in rows:
            if row.stage == stages.ORACLE or row in baselines:
                continue
            own = baseline_for(row, baselines, partial(share_bags, layout, panel, row))
            if own is None:
                if any(one.study == row.study for one in baselines):
                    unclear.add(row.text)
                elif baselines:
                    alone[row.text] = None
                continue
            for column in layout.columns_of(panel):
                cell, other = (layout.cells.get((panel, one, column)) for one in (row, own))
                if cell is None or other is None or cell.status == "no such metric":
                    continue
                if not repeats_teacher(cell.origin.stage, cell.metric.name):
                    yield Pair(panel, row, column, own, cell, other)
    if unclear:
        notes.append(f"Not compared, since several baselines answer to them: {listed(sorted(unclear))}.")
    if alone:
        notes.append(f"Not compared, since no baseline of their own study answers to them: {listed(alone)}.")


def control_pairs(layout: Layout) -> Iterator[Pair]:
    """Every student with each of its controls, and with its teacher, in the order of tables."""
    controls = StudentControls(layout)
    for kind in OF_STUDENTS:
        for panel in layout.panels:
            for row in layout.rows_of(panel):
                for column in layout.columns_of(panel):
                    cell = layout.cells.get((panel, row, column))
                    other = OTHER_SIDE[kind][1](controls, cell) if cell is not None else None
                    if cell is not None and other is not None:
                        yield Pair(panel, row, column, controls.key_of(other)[1], cell, other)


def baseline_text(baseline: Mapping[str, str]) -> str:
    """As the command line takes it: `method=none stage=teacher`."""
    return " ".join(f"{key}={value}" for key, value in baseline.items())


def why_no_pairs(layout: Layout, baseline: Mapping[str, str]) -> str:
    """Why nothing can be compared with this baseline, for an error message."""
    rows = f"rows: {listed(dict.fromkeys(row.plain_text for row in layout.rows))}"
    known: dict[str, dict[str, None]] = {}
    for row in layout.rows:
        for key, value in _values_of(row).items():
            known.setdefault(key, {})[setting_value_text(value)] = None
    for key, value in baseline.items():
        key = next((own for own in known if key in (own, layout.names.key(own))), key)
        if key not in known:
            return (
                f"--baseline {key}={value}: rows have no such key{nearest(key, known)} (keys: {listed(known)}; {rows})"
            )
        if not any(_is_named(row, {key: value}) for row in layout.rows):
            return f"--baseline {key}={value}: no row has it{nearest(value, known[key])} (there: {listed(known[key])})"
    named = [row for row in layout.rows if _is_named(row, baseline)]
    text = baseline_text(baseline)
    if named and all(row in named or row.stage == stages.ORACLE for row in layout.rows):
        return f"--baseline {text}: all rows answer to it, so that none is left to compare ({rows})"
    return f"--baseline {text}: nothing to compare with it ({rows})"


def _values_of(row: Label) -> dict[str, Any]:
    """The keys by which a baseline can be named, with their values in this row."""
    return {str(row.key): row.value, "stage": row.stage, **dict(row.keys)}


def _is_named(row: Label, baseline: Mapping[str, str]) -> bool:
    """Whether a row has all these values. Keys and values may be given by the names of the space or those for print."""
    texts = {name: row.names.accepted_texts(key, setting_value_text(value)) for key, value in _values_of(row).items()
             for name in (row.names.key(key), key)}  # fmt: skip
    return all(value in texts.get(key, ()) for key, value in baseline.items())
