"""What a result column measures: its title, its split, which direction is better, in which range it lies.

The columns are recognised by the words of their names (`val_bag_auc`, `instance_f1`, …), so that a metric
added to the runs shows up in tables without a change here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from d2l_study.errors import UserError, listed, nearest

if TYPE_CHECKING:
    import pandas

_IN_UNIT_INTERVAL = {
    "auc": "AUC", "ap": "average precision", "accuracy": "accuracy", "precision": "precision",
    "recall": "recall", "f1": "F1", "sensitivity": "sensitivity", "specificity": "specificity", "dice": "Dice",
    "froc": "FROC",
}  # fmt: skip
_ERRORS_IN_UNIT_INTERVAL = {"brier": "Brier score", "ece": "calibration error"}
_WITHOUT_END = {"nll": "negative log likelihood", "loss": "loss", "seconds": "time (s)"}
_LOWER_IS_BETTER = {**_ERRORS_IN_UNIT_INTERVAL, **_WITHOUT_END}
_OTHER_WORDS = {
    "val": "", "test": "", "bag": "bag", "instance": "instance", "distill": "distillation", "within": "within images",
}  # fmt: skip
LEVELS = ("bag", "instance")
BAG_METRICS = ("bag_accuracy", "bag_precision", "bag_recall", "bag_f1", "bag_auc")
"""Of the tables of colon and breast at the level of bags, in the order of Ilse et al. 2018."""

PLACE_METRICS = ("instance_ap", "instance_ap_within", "instance_dice_within_tuned", "instance_froc")
"""Of the same tables at the level of instances, behind the AUCs."""


@dataclass(frozen=True)
class Metric:
    """A metric of the runs."""

    name: str
    title: str
    """In words, for axes and captions: `bag AUC`."""
    split: Literal["test", "validation", ""]
    better: Literal["higher", "lower"]
    unit_interval: bool
    """Values lie in [0, 1], and intervals are built on the logit scale."""
    without_end: bool
    """Values lie in [0, ∞), and intervals are built on the log scale."""

    @property
    def heading(self) -> str:
        """The title with its split: `bag AUC (test)`."""
        return self.title + (f" ({self.split})" if self.split else "")

    @property
    def scale(self) -> str:
        """Range or unit, and the direction that is better: `0 to 1, higher is better`."""
        unit = "0 to 1" if self.unit_interval else "nats" if "nll" in self.name.split("_") else ""
        return ", ".join(filter(None, (unit, f"{self.better} is better")))


def metric_of_column(column: str) -> Metric | None:
    """The metric that a column holds, or None if it is none (a key, an id, a state)."""
    words = column.split("_")
    if column == "precision":  # the arithmetic of the run, not the share of true positives
        return None
    lower = any(word in _LOWER_IS_BETTER for word in words)
    if not lower and not any(word in _IN_UNIT_INTERVAL for word in words):
        return None
    without_end = any(word in _WITHOUT_END for word in words)
    titles = {**_IN_UNIT_INTERVAL, **_LOWER_IS_BETTER, **_OTHER_WORDS}
    title = " ".join(filter(None, (titles.get(word, word) for word in words)))
    timed = "seconds" in words
    split: Literal["test", "validation", ""] = "" if timed else "validation" if words[0] == "val" else "test"
    return Metric(column, title, split, "lower" if lower else "higher", not without_end, without_end)


def heading_of(column: str) -> str:
    """The heading of the metric that a column holds; the column's own name if it is none."""
    metric = metric_of_column(column)
    return metric.heading if metric is not None else column


def in_unit_interval(column: str) -> bool:
    """Whether a column holds a metric whose values lie in [0, 1]."""
    metric = metric_of_column(column)
    return metric is not None and metric.unit_interval


def no_metric_error(text: str) -> UserError:
    """For a value of `--metric` that names none."""
    return UserError(f"--metric {text.strip() or repr(text)}: names no metric; expected one, for example bag_auc")


def metrics_of(rows: pandas.DataFrame) -> dict[str, Metric]:
    """The metrics among the columns of a study's rows, in their order."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    found = (
        (str(column), metric_of_column(str(column)))
        for column, kind in rows.dtypes.items()
        if is_numeric_dtype(kind) and not is_bool_dtype(kind)
    )
    return {name: metric for name, metric in found if metric is not None}


def find_metric(rows: pandas.DataFrame, name: str) -> Metric:
    """The metric of that name, or a UserError with the nearest one."""
    known = metrics_of(rows)
    if name not in known:
        raise UserError(
            f"metric {name!r}: not in this study{nearest(name, known)} (metrics there: {listed(known, 40)})"
        )
    return known[name]


def level_of(name: str) -> str:
    """What a metric is about: `bag`, `instance`, or `run` (times and losses)."""
    words = name.split("_")
    return next((level for level in LEVELS if level in words), "run")


def histology_metrics(rows: pandas.DataFrame) -> list[str]:
    """The metrics of the tables of colon and breast that the rows have: of the bags accuracy, precision, recall and
    F1 at 0.5 and the AUC; of the instances the AUCs and average precisions (pooled, within images), Dice and FROC."""
    known = metrics_of(rows)
    held = [name for name in known if rows[name].notna().any()]
    instance = [name for name in held if name.startswith("instance_") and "auc" in name.split("_")]
    return [name for name in (*BAG_METRICS, *instance, *PLACE_METRICS) if name in held]
