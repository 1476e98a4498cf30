"""What the replicates of a configuration are, which of them were tested on the same bags, and how many bags trained and
tested. Intervals and tests depend on it.

    drawn   every replicate has bags of its own: independent
    folds   replicates are folds and repeats of one data set, which share training bags: corrected
            (Nadeau and Bengio, 2003)
    split   training and test parts are the user's: replicates are new initialisations, tested on the same bags

Runs of folds that were tested on the same bags (repeats of folds that the user gave, or of few groups) are one unit:
their mean is one value, since the partition is no new one. Rows say all this in the columns `partition`, `fold_count`,
`test_set`, `train_bags` and `test_bags`. Older rows lack the first three; then it follows from how replicates were
numbered (replicate = repeat × folds + fold; of a split repeat = replicate), and from two stored predictions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.rows.metrics import metric_of_column
from analysis.statistics.intervals import Interval, mean_interval, unit_values
from d2l_study.errors import UserError

if TYPE_CHECKING:
    import pandas

Design = Literal["drawn", "folds", "split"]
GIVEN_SPLIT, GIVEN_FOLDS, GIVEN_SPLITS = "given split", "given folds", "given splits"
"""Values of the column `partition`. Replicates of the first two were tested on the same bags as others. Of `dealt
folds`, `given partitions` and `given splits` the column `test_set` tells; given splits are no folds of a repeat, and a
bag may be tested in several."""

NOT_POOLED = "not_pooled"
"""The attribute of pooled rows (`out_of_fold`) that says which repeats are left out, and why: a list of texts."""


@dataclass(frozen=True)
class Partition:
    """What the replicates of one configuration are."""

    design: Design = "drawn"
    test_train_ratio: float | None = None
    """Of folds: the mean over finished runs of test bags over training bags."""
    units: Mapping[int, Hashable] = field(default_factory=dict)
    """Replicate -> what it was tested on; a replicate that is not there is a unit of its own."""
    fold_count: int | None = None
    """Of a repeat; None where replicates are no folds that test each bag once."""


DRAWN = Partition()
_NOUNS: dict[Design, str] = {"drawn": "replicate", "folds": "fold", "split": "training"}


def unit_noun(designs: Iterable[Design], count: int = 2) -> str:
    """What a mean is over: `replicates`, `folds` or `trainings`, of several designs each; the singular for a count of
    1."""
    found = [*dict.fromkeys(designs)] or ["drawn"]
    return " or ".join(_NOUNS[design] + ("" if count == 1 else "s") for design in found)


def unit_counts_text(counts: Iterable[tuple[Design, bool, int]]) -> str:
    """`5 replicates`, `4 to 5 replicates`, `15 folds (of all repeats)`, `5 folds (their repeats averaged)`,
    `3 trainings on the given split`; of several designs each: `2 replicates or 3 folds (of all repeats)`.

    counts: (design, whether runs on the same test bags are averaged, count) of each configuration
    """
    found: dict[Design, set[int]] = {}
    averaged = set()
    for design, averages, count in counts:
        found.setdefault(design, set()).add(count)
        averaged |= {design} if averages else set()
    texts = []
    for design, numbers in found.items():
        low, high = min(numbers), max(numbers)
        more = {"folds": " (their repeats averaged)" if design in averaged else " (of all repeats)",
                "split": " on the given split"}.get(design, "")  # fmt: skip
        texts.append(f"{low if low == high else f'{low} to {high}'} {unit_noun([design], high)}{more}")
    return " or ".join(texts)


def partitions_of(rows: pandas.DataFrame, test_train_ratio: float | None = None) -> dict[str, Partition]:
    """The partition of each configuration (`config_id`) of the rows of `analysis.load`; those of drawn bags are left
    out. test_train_ratio: of folds, in place of the counts in the rows."""
    known = [name for name in ("fold", "test_set") if name in rows and rows[name].notna().any()]
    if not known:
        return {}
    given = rows[rows[known].notna().any(axis=1)]
    # Which bags a replicate tests depends on the data set, its folds and the study's base seed, not on the arm.
    keys = [name for name in ("study", "dataset", "folds") if name in rows]
    found: dict[str, Partition] = {}
    for problem, runs in given.groupby(keys, dropna=False, sort=False):
        same = np.logical_and.reduce(
            [rows[k].isna() if _absent(v) else rows[k] == v for k, v in zip(keys, problem, strict=True)]
        )
        common = _of_problem(rows, runs, [int(r) for r in rows.loc[same, "replicate"].unique()])
        for config, own in rows[same].groupby("config_id", sort=False):
            ratio = None
            if common.design == "folds":
                ratio = test_train_ratio or _ratio(own, common.fold_count)
            made = Partition(common.design, ratio, common.units, common.fold_count)
            other = found.get(str(config))  # of runs that two studies share
            found[str(config)] = made if other is None else _of_both(other, made)
    return found


def _of_both(one: Partition, other: Partition) -> Partition:
    """The partition of runs that two studies share, one of which may have fewer of them, and so know fewer units."""
    less, more = sorted((other, one), key=lambda partition: len(partition.units))
    return replace(more, units={**less.units, **more.units})


def metric_interval(rows: pandas.DataFrame, metric: str, partition: Partition = DRAWN) -> Interval:
    """The mean of a metric over the finished runs among the rows of one configuration, with its interval."""
    done = rows[rows["status"] == "done"]
    values = dict(zip(done["replicate"].astype(int), done[metric].astype(float), strict=True))
    values = {replicate: value for replicate, value in sorted(values.items()) if not math.isnan(value)}
    described = metric_of_column(metric)
    return mean_interval(
        unit_values(values, partition.units),
        unit_interval=described is not None and described.unit_interval,
        without_end=described is not None and described.without_end,
        test_train_ratio=partition.test_train_ratio,
    )


def _of_problem(rows: pandas.DataFrame, runs: pandas.DataFrame, replicates: list[int]) -> Partition:
    """Design, folds and units of all runs of one data set. runs: those that say something; replicates: all planned."""
    tested = _test_sets(runs)
    if "fold" not in runs or runs["fold"].isna().all():  # pooled rows: what a repeat pools is its partition
        return Partition("drawn", None, tested)
    runs = runs[runs["fold"].notna()]
    recorded = set(runs["partition"].dropna()) if "partition" in runs else set()
    if GIVEN_SPLIT in recorded or (not recorded and _is_split(runs)):
        return Partition("split")
    if GIVEN_SPLITS in recorded:
        return Partition("folds", None, tested)
    folds = _fold_count(runs)
    other = "folds" in rows and folds != _key(runs)  # a file of chosen columns may lack the key, which says nothing
    if GIVEN_FOLDS in recorded or (not recorded and (other or _repeats_are_alike(rows, runs))):
        return Partition("folds", None, {replicate: replicate % folds for replicate in replicates}, folds)
    return Partition("folds", None, tested, folds)


def _test_sets(runs: pandas.DataFrame) -> dict[int, Hashable]:
    if "test_set" not in runs:
        return {}
    there = runs[runs["test_set"].notna()]
    return dict(zip(there["replicate"].astype(int), there["test_set"], strict=True))


def _is_split(runs: pandas.DataFrame) -> bool:
    """Of folds repeat 1 begins at replicate 3 or later."""
    later = runs[runs["replicate"] > 0]
    return bool(len(later) and ((later["fold"] == 0) & (later["repeat"] == later["replicate"])).all())


def _key(runs: pandas.DataFrame) -> int | None:
    """The key data.folds, which says nothing where the folds are the user's."""
    if "folds" not in runs or runs["folds"].isna().all():
        return None
    return int(runs["folds"].dropna().iloc[0])


def _fold_count(runs: pandas.DataFrame) -> int:
    """How many folds a repeat has."""
    if "fold_count" in runs and runs["fold_count"].notna().any():
        return int(runs["fold_count"].dropna().iloc[0])
    later = runs[runs["repeat"] > 0]
    if len(later):
        first = later.iloc[0]
        return int(first["replicate"] - first["fold"]) // int(first["repeat"])
    seen, key = int(runs["fold"].max()) + 1, _key(runs)
    if key is None or seen >= key:
        return seen
    # One repeat, of which not all folds of the key are there: with F folds one tests, one validates, the others train.
    ratio = _counted_ratio(runs)
    whole = "num_bags" not in runs or runs["num_bags"].isna().all()
    return seen if ratio and whole and abs(1 / ratio + 2 - seen) < abs(1 / ratio + 2 - key) else key


def _repeats_are_alike(rows: pandas.DataFrame, runs: pandas.DataFrame) -> bool:
    """Whether a fold of two repeats was tested on the same bags, by the stored predictions; False without them."""
    from analysis.rows.stored_predictions import run_predictions
    from analysis.rows.study_folders import FOLDERS, folders_of

    if not rows.attrs.get(FOLDERS):
        return False
    for _, same in runs.groupby(["config_id", "fold"], sort=False):
        if same["repeat"].nunique() < 2:
            continue
        one, other = same.drop_duplicates("repeat").head(2).to_dict("records")
        try:
            folder = folders_of(rows)[str(one["study"])]
            bags = [
                set(run_predictions(folder, str(run["config_id"]), int(run["replicate"]), split="test")["bag_index"])
                for run in (one, other)
            ]
        except (KeyError, UserError):  # that they are damaged is said where they are needed
            return False
        return bags[0] == bags[1]
    return False


def _ratio(own: pandas.DataFrame, folds: int | None) -> float:
    return _counted_ratio(own) or 1 / max(1, (folds or 3) - 2)


def _counted_ratio(runs: pandas.DataFrame) -> float | None:
    """Test bags over training bags, the mean over the runs that say so; None where none does."""
    if not {"train_bags", "test_bags"} <= {*runs.columns}:
        return None
    ratios = (runs["test_bags"].astype(float) / runs["train_bags"].astype(float)).dropna()
    return float(ratios.mean()) if len(ratios) else None


def _absent(value: Any) -> bool:
    return value is None or value != value
