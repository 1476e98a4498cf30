"""Rows of runs arranged as a table: which configuration stands in which cell, and what its replicates say.

Tables and figures are both drawn from a `Layout`. A cell never mixes configurations: keys that vary within an
arm and have no axis of their own become part of its label, as in `adv (lambda_adv=1)`. With `METRICS` as the column
key the columns are several metrics, those of the bags and those of the instances in panels of their own.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from analysis.cells.partitions import DRAWN, Design, Partition
from analysis.rows import stages
from analysis.rows.display_names import PLAIN, Names
from analysis.rows.metrics import Metric, describe
from analysis.statistics.intervals import Interval

if TYPE_CHECKING:
    import pandas

SYMBOL_MEANINGS = {"num_bags": "n: training bags", "mean_bag_size": "K: mean bag size"}
METRICS = "metric"
"""The column key of a table whose columns are metrics."""
LEVEL = "level"
"""The key that sets apart the panels of bag and instance metrics."""

Status = Literal["done", "partial", "failed", "not run", "missing", "undefined", "no such metric", "pruned"]


@dataclass(frozen=True)
class Label:
    """An entry of an axis: its value, then the keys that set it apart from others of the same value."""

    key: str | None
    value: Any
    stage: str | None = None
    keys: tuple[tuple[str, Any], ...] = ()
    names_stage: bool = False
    """The text says the stage too, since the value alone does not tell."""
    names: Names = field(default=PLAIN, compare=False, repr=False)
    """For print."""

    @property
    def study(self) -> Any:
        """Of which study it is, where the keys tell; what is of two studies is not compared."""
        return dict(self.keys).get("study")

    @property
    def plain(self) -> str:
        """The text with the names of the space, which commands understand."""
        return replace(self, names=PLAIN).text

    @property
    def text(self) -> str:
        parts = [self.stage] if self.stage and self.names_stage else []
        parts += [setting_text(key, value, self.names) for key, value in self.keys if key != LEVEL]
        level = next((f"{value} level" for key, value in self.keys if key == LEVEL), "")
        if level:
            return ", ".join(filter(None, [axis_text(self.key, self.value, self.names), level]))
        mark = f" {stages.MARK}" if stages.ORACLE in (self.stage, self.value if self.key == "stage" else None) else ""
        return axis_text(self.key, self.value, self.names) + (f" ({', '.join(parts)})" if parts else "") + mark


@dataclass(frozen=True)
class Origin:
    """Which configuration a cell holds, and in a distillation study which arms it comes from."""

    config_id: str
    stage: str
    teacher_id: str | None = None
    """The config_id of the (first) teacher that it learned from."""
    teacher_method: str | None = None
    student_method: str | None = None


@dataclass(frozen=True)
class Cell:
    """One configuration: its replicates' values of the metric, and how many were planned."""

    interval: Interval
    values: Mapping[int, float]
    """By replicate."""
    planned_runs: int
    status: Status
    """`partial`: fewer values than planned; `undefined`: runs are done, but the metric is NaN for all; `not run`: its
    teacher failed; `no such metric`: its stage has none of it, while others have."""
    origin: Origin
    metric: Metric
    partition: Partition = DRAWN
    planned: int = 0
    """How many values the interval is to be made of: runs, or folds where their repeats are averaged."""
    machines: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Precision and device of the finished replicates that say so."""

    @property
    def test_train_ratio(self) -> float | None:
        """Of folds of one data set, for corrected intervals and tests; None for independent replicates."""
        return self.partition.test_train_ratio

    @property
    def units(self) -> Mapping[int, Hashable]:
        """Replicate -> what it was tested on, where several replicates may have been tested on the same bags."""
        return self.partition.units

    @property
    def averages(self) -> bool:
        """Whether its interval counts means over runs that were tested on the same bags."""
        return self.planned < self.planned_runs


@dataclass
class Layout:
    """`cells[panel, row, column]`; a combination that was not planned has no cell."""

    metrics: list[Metric]
    study: str
    row_key: str
    column_key: str
    panel_key: str | None
    rows: list[Label]
    columns: list[Label]
    panels: list[Label]
    cells: dict[tuple[Label, Label, Label], Cell]
    notes: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    names: Names = PLAIN

    def metric_of(self, column: Label) -> Metric:
        """The metric of a column; the only one unless the columns are metrics."""
        if self.column_key != METRICS:
            return self.metric
        return next(metric for metric in self.metrics if metric.name == column.value)

    @property
    def metric(self) -> Metric:
        """The first metric; the only one unless the columns are metrics."""
        return self.metrics[0]

    @property
    def folds(self) -> bool:
        """Whether replicates are folds of one data set."""
        return "folds" in self.designs

    @cached_property
    def designs(self) -> list[Design]:
        """What the replicates are, in the order of the cells."""
        return list(dict.fromkeys(cell.partition.design for cell in self.cells.values()))

    @property
    def averages(self) -> bool:
        """Whether some of its folds have repeats on the same test bags."""
        return any(cell.averages for cell in self.cells.values())

    @property
    def by_study(self) -> bool:
        """Whether studies stand beside each other and are compared each within itself."""
        return any(label.study is not None for label in (*self.rows, *self.columns, *self.panels))

    def rows_of(self, panel: Label) -> list[Label]:
        """The rows that have a cell in the panel, in order."""
        return [r for r in self.rows if r in self._there[panel][0]]

    def columns_of(self, panel: Label) -> list[Label]:
        return [c for c in self.columns if c in self._there[panel][1]]

    @cached_property
    def _there(self) -> dict[Label, tuple[set[Label], set[Label]]]:
        """The rows and the columns of each panel."""
        found: dict[Label, tuple[set[Label], set[Label]]] = {panel: (set(), set()) for panel in self.panels}
        for panel, row, column in self.cells:
            found[panel][0].add(row)
            found[panel][1].add(column)
        return found


def default_columns(rows: pandas.DataFrame) -> str:
    """The slides' layouts: methods × number of bags for drawn bags, methods × metrics for folds of given ones."""
    return METRICS if has_folds(rows) or "num_bags" not in rows or rows["num_bags"].isna().all() else "num_bags"


def has_folds(rows: pandas.DataFrame) -> bool:
    """Whether bags are given: replicates are folds of one data set, or trainings on one split of it."""
    return bool("fold" in rows and rows["fold"].notna().any())


def default_panel(rows: pandas.DataFrame) -> str | None:
    """A table per bag size for drawn bags, per data set where there are several."""
    if default_columns(rows) == METRICS:
        return "dataset" if rows["dataset"].nunique() > 1 else None
    return "mean_bag_size"


def axis_text(key: str | None, value: Any, names: Names = PLAIN) -> str:
    """`n = 50`, `none`, `pooling = attention`; empty without a key."""
    if key is None:
        return ""
    if key == "method":
        return names.arm(show(value))
    if key == METRICS:
        metric = describe(str(value))
        return names.texts.get(str(value)) or (metric.title if metric is not None else str(value))
    return f"{names.key(key)} = {show(value)}"


def setting_text(key: str, value: Any, names: Names = PLAIN) -> str:
    """A key and its value behind the name of an arm: `n = 50` where the key has a name for print, else
    `lambda_adv=1`."""
    named = names.key(key)
    if key.endswith("method"):
        value = names.arm(show(value))
    return f"{key}={show(value)}" if named == key else f"{named} = {show(value)}"


def show(value: Any) -> str:
    """A value as a person writes it: 50, 0.05, attention; `–` for none."""
    if absent(value):
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
