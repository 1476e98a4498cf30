"""Model selection: of each arm and task the configuration with the best mean validation AUC over replicates.

Large studies and searches are shown by these alone: nobody reads a table of ten thousand settings. The best of them by
the test metric would be picked by luck as much as by merit, so test metrics are looked at after the choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.cells.best import SIZE_KEYS, TASK_KEYS
from analysis.rows.stages import ORACLE, PART_TEACHER

if TYPE_CHECKING:
    import pandas

SELECTION_METRIC = "val_bag_auc"
"""The metric that chooses; higher is better."""
TIE = 1e-9
"""Means of it that differ by less are equal."""


def ranked_by_validation(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row per configuration that has finished runs and a validation AUC, oracle and part teachers left out:
    `config_id`, `trial_id`, `stage`, `method`, the keys of the task (its sizes, and others that vary), `validation`
    (mean), `count`, `planned`; sorted by task, best first."""
    if SELECTION_METRIC not in rows:
        return rows.iloc[:0].assign(validation=0.0, count=0, planned=0, complete=True)
    tasks = [key for key in TASK_KEYS if key in rows and rows[key].notna().any()
             and (key in SIZE_KEYS or rows[key].nunique(dropna=False) > 1)]  # fmt: skip
    names = ["config_id", "method"]
    kept = rows[~rows["stage"].isin((ORACLE, PART_TEACHER))]
    if "oracle" in kept:
        kept = kept[~kept["oracle"].eq(True)]
    planned = kept.groupby(names, sort=False).size()
    done = kept[(kept["status"] == "done") & kept[SELECTION_METRIC].notna()]
    groups = done.groupby(names, sort=False)
    found = groups[["trial_id", "stage", *tasks]].first()
    found["validation"] = groups[SELECTION_METRIC].mean()
    found["count"] = groups.size()
    found["planned"] = planned.reindex(found.index)
    # A mean over fewer replicates is another lottery: complete configurations come first.
    found["complete"] = found["count"] == found["planned"]
    order = [*tasks, "complete", "validation"]
    return found.reset_index().sort_values(order, ascending=[True] * len(tasks) + [False, False], kind="stable")


def ties_for_first(order: pandas.DataFrame) -> int:
    """How many of the configurations of one task share the first place: as complete as the first one, and with the same
    validation AUC. order: as of `ranked_by_validation`. 0 of none."""
    if order.empty:
        return 0
    first = order.iloc[0]
    same = (order["complete"] == first["complete"]) & ((order["validation"] - first["validation"]).abs() <= TIE)
    return int(same.sum())


def selected_rows(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The rows of the chosen configuration of each stage, arm and task, settings that vary no longer named; the
    oracle's and other rows without a validation AUC are left out. Of several that tie it is the first planned."""
    order = ranked_by_validation(rows)
    tasks = [key for key in TASK_KEYS if key in order]
    best = order.drop_duplicates(["stage", "method", *tasks])
    keys = best.set_index(["config_id", "method"]).index
    kept = rows[rows.set_index(["config_id", "method"]).index.isin(keys)].copy()
    kept.attrs = {**rows.attrs, "varied": [key for key in rows.attrs.get("varied", []) if key in tasks]}
    return kept
