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

from analysis.cells.partitions import DRAWN, NOT_POOLED, partitions_of
from analysis.cells.setting_columns import RUN_COLUMNS
from analysis.rows import stages
from analysis.rows.metrics import metric_of_column
from analysis.rows.repeated_runs import unlike_rows
from analysis.rows.stored_predictions import run_predictions
from analysis.rows.study_folders import FOLDERS, RunFolders
from d2l_study.errors import listed
from d2l_study.learning import metrics

if TYPE_CHECKING:
    import pandas


def pooled_rows(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row per configuration and repeat whose folds are all done: the settings of the configuration, `replicate`
    and `repeat` the repeat, `fold` empty, `test_set` the partition (the same for repeats of the same folds), and the
    pooled metrics under the names that they have by fold. `attrs["not_pooled"]` names the repeats that lack a fold.

    rows: of `analysis.load` from study folders; what came from files beside them is left out. Empty without folds;
    given splits have nothing to pool. UserError where a finished run kept no predictions.
    """
    import pandas as pd

    rows = stages.without_part_teachers(rows)
    if "fold" not in rows or rows["fold"].isna().all():
        return rows.iloc[:0].copy()
    folders = RunFolders.of(rows)
    partitions = partitions_of(rows)
    settings = [str(c) for c in rows if str(c) not in RUN_COLUMNS and metric_of_column(str(c)) is None]
    kept = [*dict.fromkeys([*settings, "study", "config_id", "trial_id", "teacher_id", "teacher_method",
                            "student_method"])]  # fmt: skip
    found: list[dict[str, Any]] = []
    left_out: list[str] = []
    done = rows[(rows["status"] == "done") & rows["fold"].notna()]
    kept_scores = done["study"].isin(list(rows.attrs[FOLDERS]))
    bare, done = done[~kept_scores], done[kept_scores]
    bare = bare[~bare["config_id"].isin(done["config_id"])]
    left_out += [f"study {name} (not from its folder)" for name in bare["study"].dropna().unique()]
    apart = ["study"] * (unlike_rows(done) is not None)  # studies that tables tell apart share no run
    for (config, method, *_), group in done.groupby(["config_id", "method", *apart], sort=False):
        partition = partitions.get(str(config), DRAWN)
        if partition.fold_count is None:
            continue
        # Several studies may share a configuration, and each have some of its folds.
        whole, lacking = whole_repeats(group.drop_duplicates("replicate"), partition.fold_count)
        of_study = [
            (name, whole_repeats(own, partition.fold_count)[0]) for name, own in group.groupby("study", sort=False)
        ]
        left_out += [f"{method}, {text}" for text in lacking]
        for repeat, runs in whole.items():
            own_study = str(runs["study"].iloc[0]) if apart else None
            numbers = [(str(config), int(replicate)) for replicate in runs["replicate"]]
            parts = [run_predictions(folders.folder(*run, own_study), *run, split="test") for run in numbers]
            first: Mapping[Any, Any] = runs.iloc[0].to_dict()
            tested = sorted(str(partition.units.get(int(r), f"replicate {int(r)}")) for r in runs["replicate"])
            ranked_by_validation = first["stage"] in stages.WITHOUT_PROBABILITY
            pooled = pooled_metrics(pd.concat(parts), probabilities=not ranked_by_validation)
            # In each study that has it whole, where tables tell studies apart; else they take the first.
            for study in [name for name, own in of_study if repeat in own] or [first["study"]]:
                found.append({
                    **{name: first.get(name) for name in kept}, "study": study, "method": method, "status": "done",
                    "cause": None, "replicate": repeat, "repeat": repeat, "fold": math.nan,
                    "test_set": " ".join(tested), **pooled,
                })  # fmt: skip
    frame = pd.DataFrame(found, columns=None if found else rows.columns)
    frame.attrs = {**rows.attrs, NOT_POOLED: list(dict.fromkeys(left_out))}
    return frame


def whole_repeats(done: pandas.DataFrame, folds: int) -> tuple[dict[int, pandas.DataFrame], list[str]]:
    """Of the finished runs of one configuration those of each repeat that has all its folds, and what the other
    repeats lack, in words."""
    found: dict[int, pandas.DataFrame] = {}
    left_out = []
    for repeat, runs in done.groupby("repeat"):
        if lacking := sorted(set(range(folds)) - {int(fold) for fold in runs["fold"]}):
            left_out.append(f"repeat {int(repeat)} (lacks fold {listed(lacking, 5)})")
        else:
            found[int(repeat)] = runs
    return found, left_out


def pooled_metrics(predictions: pandas.DataFrame, *, probabilities: bool = True) -> dict[str, float]:
    """Metrics of predictions (`level`, `label`, `logit`) of any number of runs taken as one; unknown labels are left
    out. Those that need a threshold take a probability of 0.5; scores that are no probabilities have none of them."""
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
        if not probabilities:
            continue
        found |= {f"{level}_{name}": value for name, value in metrics.at_threshold(label, logit).items()}
        if level == "bag":
            found |= {"bag_nll": metrics.log_loss(label, logit), "bag_brier": metrics.brier(label, logit)}
    return found
