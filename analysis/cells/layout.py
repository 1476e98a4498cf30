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

from analysis.cells.bag_source import BagSource
from analysis.cells.partitions import DRAWN, Design, Partition, unit_noun
from analysis.rows import stages
from analysis.rows.display_names import PLAIN, Names
from analysis.rows.metrics import Metric, metric_of_column
from analysis.statistics.intervals import Interval
from d2l_study.options import value_text as option_text
from d2l_study.study.ledger.instance_labels import NO_INSTANCE_LABELS

if TYPE_CHECKING:
    import pandas

SYMBOL_MEANINGS = {
    "num_bags": "n: training bags", "mean_bag_size": "K: mean bag size",
    "unlabelled_bags": "m: unlabelled training bags",
}  # fmt: skip
METRICS = "metric"
"""The column key of a table whose columns are metrics."""
LEVEL = "level"
"""The key that sets apart the panels of bag and instance metrics."""

Status = Literal[
    "done", "partial", "failed", "not run", "missing", "undefined", "no instance labels", "no such metric", "pruned"
]


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
    """The names for print of its arms and keys."""

    @property
    def study(self) -> Any:
        """Its study, where the keys tell; None otherwise. Labels of two studies are not compared."""
        return dict(self.keys).get("study")

    @property
    def plain_text(self) -> str:
        """The text with the names of the space, which commands understand."""
        return replace(self, names=PLAIN).text

    @property
    def text(self) -> str:
        """The entry as it is printed, with its names for print."""
        parts = [self.stage] if self.stage and self.names_stage else []
        parts += [setting_text(key, value, self.names) for key, value in self.keys if key != LEVEL]
        level = next((f"{value} level" for key, value in self.keys if key == LEVEL), "")
        if level:
            return ", ".join(filter(None, [axis_text(self.key, self.value, self.names), level]))
        is_oracle = stages.ORACLE in (self.stage, self.value if self.key == "stage" else None)
        text = axis_text(self.key, self.value, self.names) + (f" ({', '.join(parts)})" if parts else "")
        return f"{text} {stages.ORACLE_MARK}" if is_oracle else text


@dataclass(frozen=True)
class Origin:
    """Which configuration a cell holds, and in a distillation study which arms it comes from."""

    config_id: str
    stage: str
    teacher_id: str | None = None
    """The config_id of the (first) teacher that it learned from."""
    teacher_method: str | None = None
    student_method: str | None = None
    control_ids: Mapping[str, str] = field(default_factory=dict)
    """Of a student the config_ids of the reference rows that it is compared with, by stage (`learning.controls`)."""
    instance_visits: float | None = None
    """The mean over its runs of how many instances training saw, where rows say so."""


@dataclass(frozen=True)
class Cell:
    """One configuration: its replicates' values of the metric, and how many were planned."""

    interval: Interval
    values: Mapping[int, float]
    """By replicate."""
    planned_runs: int
    status: Status
    """`partial`: fewer values than planned; `undefined`: runs are done, but the metric is NaN for all; `no
    instance labels`: so it is, since the data have none; `not run`: its
    teacher failed; `no such metric`: its stage has none of it, while others have."""
    origin: Origin
    metric: Metric
    partition: Partition = DRAWN
    planned: int = 0
    """How many values the interval is to be made of: runs, or folds where their repeats are averaged."""
    hardware: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Precision and device of the finished replicates that say so."""
    source: BagSource = field(default_factory=BagSource)
    """Where its test bags come from."""

    @property
    def test_train_ratio(self) -> float | None:
        """Of folds of one data set, for corrected intervals and tests; None for independent replicates."""
        return self.partition.test_train_ratio

    @property
    def units(self) -> Mapping[int, Hashable]:
        """Replicate -> what it was tested on, where several replicates may have been tested on the same bags."""
        return self.partition.units

    @property
    def averages_repeats(self) -> bool:
        """Whether its interval counts means over runs that were tested on the same bags."""
        return self.planned < self.planned_runs


CellKey = tuple[Label, Label, Label]
"""Where a cell stands: (panel, row, column)."""


def study_of(cell_key: CellKey) -> Any:
    """The study that the labels of a cell name; None where they name none."""
    return next((label.study for label in cell_key if label.study is not None), None)


@dataclass
class Layout:
    """The cells of a table by panel, row and column; a combination that was not planned has no cell."""

    metrics: list[Metric]
    study: str
    row_key: str
    column_key: str
    panel_key: str | None
    rows: list[Label]
    columns: list[Label]
    panels: list[Label]
    cells: dict[CellKey, Cell]
    notes: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    thinned: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Data set of given bags -> its numbers of training bags, where no run trained on all that its fold has."""
    names: Names = PLAIN
    labels_used: Mapping[Any, tuple[int, int]] = field(default_factory=dict)
    """Number of training bags -> the least and the most labels that runs with it used (`cells.labels_used`)."""
    unlabelled: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Number of unlabelled training bags, above 0 -> the methods that have it."""
    snapshots_chosen: bool | None = None
    """Whether validation bags chose the snapshots of runs; None where it is not known."""

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
    def has_folds(self) -> bool:
        """Whether replicates are folds of one data set."""
        return "folds" in self.designs

    @cached_property
    def designs(self) -> list[Design]:
        """What the replicates are, in the order of the cells."""
        return list(dict.fromkeys(cell.partition.design for cell in self.cells.values()))

    @property
    def averages_repeats(self) -> bool:
        """Whether some of its folds have repeats on the same test bags."""
        return any(cell.averages_repeats for cell in self.cells.values())

    @property
    def by_study(self) -> bool:
        """Whether studies stand beside each other and are compared each within itself."""
        return any(label.study is not None for label in (*self.rows, *self.columns, *self.panels))

    @property
    def units_text(self) -> str:
        """What a mean is over: `replicates`, `folds (their repeats averaged)`."""
        return unit_noun(self.designs) + (" (their repeats averaged)" if self.averages_repeats else "")

    def rows_of(self, panel: Label) -> list[Label]:
        """The rows that have a cell in the panel, in order."""
        return [r for r in self.rows if r in self._there[panel][0]]

    def columns_of(self, panel: Label) -> list[Label]:
        """The columns that have a cell in the panel, in order."""
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
    return METRICS if has_given_bags(rows) or "num_bags" not in rows or rows["num_bags"].isna().all() else "num_bags"


def has_given_bags(rows: pandas.DataFrame) -> bool:
    """Whether bags are given: replicates are folds of one data set, or trainings on one split of it."""
    return bool("fold" in rows and rows["fold"].notna().any())


def default_panel(rows: pandas.DataFrame) -> str | None:
    """A table per bag size for drawn bags, per data set where there are several."""
    if default_columns(rows) == METRICS:
        return "dataset" if rows["dataset"].nunique() > 1 else None
    return "mean_bag_size"


def known_panel(rows: pandas.DataFrame, panel_key: str | None) -> str | None:
    """The key of the panels; None where it is the default one and the bags are of another kind, which have no size."""
    return None if panel_key == "mean_bag_size" and panel_key not in rows else panel_key


def panel_title(panel: Label, column: Label) -> str:
    """What tells a panel and a column from the others: `K = 10, n = 50`. A metric is no part of it."""
    return ", ".join(filter(None, [panel.text, "" if column.key == METRICS else column.text]))


def axis_text(key: str | None, value: Any, names: Names = PLAIN) -> str:
    """`n = 50`, `none`, `pooling = attention`; empty without a key."""
    if key is None:
        return ""
    if key == "method":
        return names.arm(value_text(value))
    if key == METRICS:
        metric = metric_of_column(str(value))
        if metric is None or str(value) in names.texts:
            return names.texts.get(str(value)) or str(value)
        return f"validation {metric.title}" if metric.split == "validation" else metric.title
    return f"{names.key(key)} = {value_text(value)}"


def setting_text(key: str, value: Any, names: Names = PLAIN) -> str:
    """A key and its value behind the name of an arm: `n = 50` where the key has a name for print, else
    `lambda_adv=1`."""
    named = names.key(key)
    if key.endswith("method"):
        value = names.arm(value_text(value))
    text = setting_value_text(value)
    return f"{key}={text}" if named == key else f"{named} = {text}"


def setting_value_text(value: Any) -> str:
    """The value of a key as a space has it: `null` for none."""
    return "null" if is_missing(value) else value_text(value)


def value_text(value: Any) -> str:
    """A value as a person writes it: 50, 0.05, attention; `–` for none."""
    value = value.item() if hasattr(value, "item") else value  # of NumPy
    return "–" if is_missing(value) else option_text(value)


def why_no_values(layout: Layout) -> str:
    """` (no instance labels)` where that is why there is nothing to show; else empty."""
    return f" ({NO_INSTANCE_LABELS})" if NO_INSTANCE_LABELS in {c.status for c in layout.cells.values()} else ""


def is_missing(value: Any) -> bool:
    """Whether a value is None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))
