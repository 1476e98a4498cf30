"""Of each arm and task the configuration that validation chose: what a large study or a search is shown by.

A table of ten thousand settings tells nobody anything, and the best of them by the test metric would be picked by luck
as much as by merit. The mean validation AUC over replicates picks; test figures are looked at after that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from analysis.cells.best import TASK
from analysis.cells.layout import show
from analysis.rows.display_names import Names
from analysis.rows.stages import ORACLE
from d2l_study.errors import UserError, listed, nearest

if TYPE_CHECKING:
    import pandas

CHOICE = "val_bag_auc"
"""The metric that chooses, higher is better."""


def ranked(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row per configuration that has finished runs and a validation AUC, the oracle left out: `config_id`,
    `trial_id`, `stage`, `method`, the keys of the task, `validation` (mean), `count`, `planned`; sorted by task, best
    first."""
    if CHOICE not in rows:
        return rows.iloc[:0].assign(validation=0.0, count=0, planned=0, complete=True)
    tasks = [key for key in TASK if key in rows and rows[key].notna().any()]
    names = ["config_id", "method"]
    kept = rows[rows["stage"] != ORACLE]
    if "oracle" in kept:
        kept = kept[~kept["oracle"].eq(True)]
    planned = kept.groupby(names, sort=False).size()
    done = kept[(kept["status"] == "done") & kept[CHOICE].notna()]
    groups = done.groupby(names, sort=False)
    found = groups[["trial_id", "stage", *tasks]].first()
    found["validation"] = groups[CHOICE].mean()
    found["count"] = groups.size()
    found["planned"] = planned.reindex(found.index)
    # A mean over fewer replicates is another lottery: complete configurations come first.
    found["complete"] = found["count"] == found["planned"]
    order = [*tasks, "complete", "validation"]
    return found.reset_index().sort_values(order, ascending=[True] * len(tasks) + [False, False], kind="stable")


def tied_first(order: pandas.DataFrame) -> int:
    """How many of the configurations of one task (`ranked`) share the first place: as complete, and with the same
    validation AUC. 0 of none."""
    if order.empty:
        return 0
    first = order.iloc[0]
    same = (order["complete"] == first["complete"]) & ((order["validation"] - first["validation"]).abs() <= 1e-9)
    return int(same.sum())


def chosen_rows(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The rows of the chosen configuration of each stage, arm and task, settings that vary no longer named; the
    oracle's and other rows without a validation AUC are left out. Of several that tie it is the first planned."""
    order = ranked(rows)
    tasks = [key for key in TASK if key in order]
    best = order.drop_duplicates(["stage", "method", *tasks])
    keys = best.set_index(["config_id", "method"]).index
    kept = rows[rows.set_index(["config_id", "method"]).index.isin(keys)].copy()
    kept.attrs = {**rows.attrs, "varied": [key for key in rows.attrs.get("varied", []) if key in tasks]}
    return kept


def where(rows: pandas.DataFrame, wanted: Mapping[str, str]) -> pandas.DataFrame:
    """The rows that have these values, as texts. UserError for a key that is not there, or a value that no row has."""
    kept = rows
    for key, value in wanted.items():
        if key not in rows:
            raise UserError(f"--where {key}={value}: the study has no such key{nearest(key, [str(c) for c in rows])}")
        texts = kept[key].map(lambda v: show(v.item() if hasattr(v, "item") else v))
        if not (texts == value).any():  # the name that tables show
            printed = [
                Names.of_studies(kept, [str(study)]).shown(key, text)
                for study, text in zip(kept["study"], texts, strict=True)
            ]
            texts = texts.where([value not in names for names in printed], value)
        if not (texts == value).any():
            there = list(dict.fromkeys(texts))
            raise UserError(
                f"--where {key}={value}: no run has it{nearest(value, there)} (there: {listed(there[:12])})"
            )
        kept = kept[texts == value]
    return kept
