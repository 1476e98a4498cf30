"""Which cells of a table are the best, and which of the others a test cannot tell from the best.

The cells of one column are compared (those of one row, where the methods are the columns) as far as they are of one
task and were tested on the same bags, never the oracle. From `TESTED_FROM` common replicates on, every other cell is
tested against the one with the best mean: Student's paired t test, corrected for folds of one data set, with Holm's
correction over all such tests of the table. What is not rejected at 0.05 cannot be told from the best.

The best was picked by the same data, so it is flattered, and the tests are a guide to reading a table and no
confirmation; for one comparison that was named beforehand use `compare`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.cells.layout import Cell, CellKey, Layout, study_of
from analysis.cells.other_bags import on_same_bags
from analysis.rows import stages
from analysis.statistics.intervals import paired_values
from analysis.statistics.paired_tests import SIGNIFICANCE_LEVEL, TestResult, corrected_t, holm

TESTED_FROM = 10
"""Common replicates from which a cell is tested against the best."""
SIZE_KEYS = ("dataset", "num_bags", "mean_bag_size")
TASK_KEYS = (*SIZE_KEYS, "bag_size_variance", "positive_digit", "witness_rate", "prevalence", "label_noise")
"""Keys of the problem, not of the method: configurations that differ in one are not rivals."""


@dataclass(frozen=True)
class BestComparison:
    """The test of a cell against the best one of its column (of its row, where the methods are the columns)."""

    cell_key: CellKey
    best: CellKey
    count: int
    p: float
    p_holm: float


def best_cells(layout: Layout, printed: Callable[[Cell], float]) -> set[CellKey]:
    """The cells with the best mean of their line, ties included, where there is a choice. printed: the mean of a cell
    as the table rounds it. A mean over fewer values than another cell of the line has is never the best; nothing is
    where such a mean is better (`lines_without_best`)."""
    found = set()
    for line in _lines_with_best(layout):
        means = {cell_key: printed(line[cell_key]) for cell_key in _fullest(line)}
        if len({printed(cell) for cell in line.values()}) > 1:
            sign = _sign(line)
            top = max(sign * mean for mean in means.values())
            found |= {cell_key for cell_key, mean in means.items() if sign * mean == top}
    return found


def compare_with_best(layout: Layout) -> dict[CellKey, BestComparison]:
    """The test of every cell that shares at least `TESTED_FROM` replicates with the best cell of its line; without
    those that a test says nothing of, as where all differences are equal."""
    tested = list[tuple[CellKey, CellKey, TestResult]]()
    for line in _lines_with_best(layout):
        best = _best_of_fullest(line)
        for cell_key, cell in line.items():
            d = paired_values(line[best].values, cell.values, cell.units)
            if cell_key != best and len(d) >= TESTED_FROM:
                test = corrected_t(d, cell.test_train_ratio or 0.0)
                tested += [] if math.isnan(test.p) else [(cell_key, best, test)]
    corrected = holm([test.p for *_, test in tested])
    return {
        cell_key: BestComparison(cell_key, best, test.count, test.p, p)
        for (cell_key, best, test), p in zip(tested, corrected, strict=True)
    }


def is_tied(test: BestComparison | None) -> bool:
    """Whether the cell was tested and cannot be told from the best."""
    return test is not None and test.p_holm >= SIGNIFICANCE_LEVEL


def _fullest(line: dict[CellKey, Cell]) -> list[CellKey]:
    """Those with the most values: where a metric is undefined for some runs, the mean over the others flatters."""
    most = max(len(cell.values) for cell in line.values())
    return [cell_key for cell_key, cell in line.items() if len(cell.values) == most]


def lines_without_best(layout: Layout) -> int:
    """How many lines have no best cell, since the best mean is over fewer values than others."""
    return sum(map(_is_beaten_by_fewer, _lines(layout)))


def _best_of_fullest(line: dict[CellKey, Cell]) -> CellKey:
    sign = _sign(line)
    return max(_fullest(line), key=lambda cell_key: sign * line[cell_key].interval.mean)


def _sign(line: dict[CellKey, Cell]) -> int:
    return 1 if next(iter(line.values())).metric.better == "higher" else -1


def _is_beaten_by_fewer(line: dict[CellKey, Cell]) -> bool:
    """Whether a mean over fewer values is better than the best of the fullest, over the values that both have too. Then
    it may be the best, or owe it to the runs that it lacks."""
    sign, full = _sign(line), set(_fullest(line))
    best = line[_best_of_fullest(line)]
    for cell in (cell for cell_key, cell in line.items() if cell_key not in full):
        if sign * (cell.interval.mean - best.interval.mean) > 0:
            d = paired_values(cell.values, best.values, cell.units)
            if not len(d) or sign * float(np.mean(d)) > 0:
                return True
    return False


def _lines_with_best(layout: Layout) -> Iterator[dict[CellKey, Cell]]:
    return (line for line in _lines(layout) if not _is_beaten_by_fewer(line))


def _lines(layout: Layout) -> Iterator[dict[CellKey, Cell]]:
    """The cells that are compared with each other: those of a task, whose keys may have an axis or not, on the same
    bags."""
    across = layout.column_key == "method"
    lines: dict[tuple[Any, ...], dict[CellKey, Cell]] = {}
    for cell_key, cell in layout.cells.items():
        if cell.values and cell.origin.stage != stages.ORACLE:
            line = (cell_key[0], cell_key[1] if across else cell_key[2], _task(cell_key), study_of(cell_key))
            lines.setdefault(line, {})[cell_key] = cell
    for line_cells in lines.values():
        yield from on_same_bags(line_cells)


def task_keys(layout: Layout) -> list[str]:
    """The keys of the task that tell cells of a line apart, which are not compared."""
    within = 2 if layout.column_key == "method" else 1
    found: dict[tuple[Any, ...], set[tuple[Any, ...]]] = {}
    for cell_key in layout.cells:
        line = tuple(label for i, label in enumerate(cell_key) if i != within)
        found.setdefault(line, set()).add(_task(cell_key))
    told = {pair[0] for tasks in found.values() for task in tasks for pair in task if any(pair not in t for t in tasks)}
    return [key for key in TASK_KEYS if key in told]


def _task(cell_key: CellKey) -> tuple[tuple[str, Any], ...]:
    """The keys of the task that a cell's labels name, with their values."""
    named = {k: v for label in cell_key for k, v in ((label.key, label.value), *label.keys)}
    return tuple((key, named[key]) for key in TASK_KEYS if named.get(key) is not None)
