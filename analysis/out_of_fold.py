"""Pooled out-of-fold figures: the metrics of one repeat's test predictions, all its folds together.

Each bag of the data set is in exactly one test fold of a repeat, so a repeat gives one AUC over all bags, where a
fold of a few bags may have none. It mixes the scores of different models, whose scales need not agree, which costs
AUC; the mean over folds does not, but weighs small folds like large ones. Tables show both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.arrange import RUN_COLUMNS
from analysis.metrics import describe
from analysis.results import folders_of, run_predictions
from d2l_study.learning import metrics

if TYPE_CHECKING:
    import pandas


def pooled_rows(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row per configuration and repeat whose folds are all done: the settings of the configuration, `replicate`
    and `repeat` the repeat, `fold` empty, and the pooled metrics under the names that they have by fold.

    rows: of `analysis.load` from study folders. Empty without folds. UserError where a finished run kept no
    predictions.
    """
    import pandas as pd

    if "fold" not in rows or rows["fold"].isna().all():
        return rows.iloc[:0].copy()
    folders = folders_of(rows)
    settings = [str(c) for c in rows if str(c) not in RUN_COLUMNS and describe(str(c)) is None]
    kept = [*dict.fromkeys([*settings, "study", "config_id", "trial_id", "teacher_id", "teacher_method",
                            "student_method"])]  # fmt: skip
    found: list[dict[str, Any]] = []
    done = rows[(rows["status"] == "done") & rows["fold"].notna()]
    for (study, config, method), group in done.groupby(["study", "config_id", "method"], sort=False):
        folds = _folds(rows, group)
        for repeat, runs in group.groupby("repeat"):
            if set(runs["fold"]) != set(range(folds)):
                continue
            parts = [run_predictions(folders[str(study)], str(config), int(r), split="test") for r in runs["replicate"]]
            first: Mapping[Any, Any] = runs.iloc[0].to_dict()
            found.append({
                **{name: first.get(name) for name in kept}, "method": method, "status": "done", "cause": None,
                "replicate": int(repeat), "repeat": int(repeat), "fold": math.nan, **pooled_metrics(pd.concat(parts)),
            })  # fmt: skip
    frame = pd.DataFrame(found, columns=None if found else rows.columns)
    frame.attrs = dict(rows.attrs)
    return frame


def pooled_metrics(predictions: pandas.DataFrame) -> dict[str, float]:
    """Metrics of predictions (`level`, `label`, `logit`) of any number of runs taken as one; unknown labels are left
    out. Those that need a threshold take a probability of 0.5."""
    found: dict[str, float] = {}
    for level in ("bag", "instance"):
        part = predictions[(predictions["level"] == level) & predictions["label"].notna()]
        label, logit = part["label"].to_numpy(int), part["logit"].to_numpy(float)
        if not len(label):
            continue
        if np.isnan(logit).any():
            continue
        found[f"{level}_auc"] = metrics.auc(label, logit)
        found[f"{level}_ap"] = metrics.average_precision(label, logit)
        found |= {f"{level}_{name}": value for name, value in metrics.at_threshold(label, logit).items()}
        if level == "bag":
            found |= {"bag_nll": metrics.log_loss(label, logit), "bag_brier": metrics.brier(label, logit)}
    return found


def _folds(rows: pandas.DataFrame, group: pandas.DataFrame) -> int:
    """How many folds a repeat of these runs has."""
    if "folds" in group and group["folds"].notna().any():
        return int(group["folds"].dropna().iloc[0])
    same = rows["dataset"] == group["dataset"].iloc[0] if "dataset" in rows else slice(None)
    return int(rows.loc[same, "fold"].max()) + 1
