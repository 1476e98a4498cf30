"""Which cells of a table are the best, and which of the others a test cannot tell from the best.

The cells of one column are compared (those of one row, where the methods are the columns), never the oracle. From
`TESTED_FROM` common replicates on, every other cell is tested against the one with the best mean: Student's paired t
test, corrected for folds of one data set, with Holm's correction over all such tests of the table. What is not
rejected at 0.05 cannot be told from the best.

The best was picked by the same data, so it is flattered, and the tests are a guide to reading a table and no
confirmation; for one comparison that was named beforehand use `compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from analysis.cells.layout import METRICS, Cell, Label, Layout
from analysis.rows import stages
from analysis.statistics.intervals import paired_values
from analysis.statistics.paired_tests import corrected_t, holm

TESTED_FROM = 10
LEVEL = 0.05
TASK = ("dataset", "num_bags", "mean_bag_size")
"""Keys of the problem, not of the method."""

Place = tuple[Label, Label, Label]
"""(panel, row, column)."""


@dataclass(frozen=True)
class ToBest:
    """A cell tested against the best one of its line."""

    place: Place
    best: Place
    count: int
    p: float
    p_holm: float

    @property
    def told_apart(self) -> bool:
        return self.p_holm < LEVEL


def best_cells(layout: Layout, printed: Callable[[Cell], float]) -> set[Place]:
    """The best means as printed, ties included, where there is a choice."""
    found = set()
    for line in _lines(layout):
        means = {place: printed(cell) for place, cell in line.items()}
        if len(set(means.values())) > 1:
            higher = next(iter(line.values())).metric.better == "higher"
            top = max(means.values()) if higher else min(means.values())
            found |= {place for place, mean in means.items() if mean == top}
    return found


def versus_best(layout: Layout) -> dict[Place, ToBest]:
    """Every cell that shares `TESTED_FROM` replicates with the best of its line, and the test against it."""
    tested = []
    for line in _lines(layout):
        sign = 1 if next(iter(line.values())).metric.better == "higher" else -1
        best = max(line, key=lambda place: sign * line[place].interval.mean)
        for place, cell in line.items():
            d = paired_values(line[best].values, cell.values, cell.units)
            if place != best and len(d) >= TESTED_FROM:
                tested.append((place, best, corrected_t(d, cell.test_train_ratio or 0.0)))
    corrected = holm([test.p for *_, test in tested])
    return {
        place: ToBest(place, best, test.count, test.p, p)
        for (place, best, test), p in zip(tested, corrected, strict=True)
    }


def is_tied(test: ToBest | None) -> bool:
    """Tested and not told apart; a p that is not defined says neither."""
    return test is not None and test.p_holm >= LEVEL


def _lines(layout: Layout) -> Iterator[dict[Place, Cell]]:
    """The cells that are compared with each other. Where the columns are metrics, the number and size of bags may
    have no axis: rows that differ in them are different tasks."""
    across = layout.column_key == "method"
    lines: dict[tuple[Any, ...], dict[Place, Cell]] = {}
    for place, cell in layout.cells.items():
        if cell.values and cell.origin.stage != stages.ORACLE:
            task = tuple((k, v) for k, v in place[1].keys if k in TASK) if layout.column_key == METRICS else ()
            study = next((label.study for label in place if label.study is not None), None)
            lines.setdefault((place[0], place[1] if across else place[2], task, study), {})[place] = cell
    yield from lines.values()
