"""What replicates are: folds, given folds with repeats, a given split; and intervals against a calculation by hand."""

import csv
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from make_folds import make_folds
from make_study import make_study
from scipy import stats

import analysis
from analysis.cells.arrange import arrange
from analysis.cells.layout import METRICS
from analysis.cells.out_of_fold import pooled_rows
from analysis.cells.partitions import metric_interval, partitions_of
from analysis.report.sections import study_facts
from analysis.rows.exported_files import export
from analysis.statistics.intervals import paired_difference
from analysis.tables.comparison import compare
from analysis.tables.study_table import table
from d2l_study.errors import UserError
from d2l_study.study.mlflow.configuration_page import final_metrics, row_facts


def study(root, **how):
    make_folds(root, **{"images": 30, **how})
    return analysis.load("folded", root)


def cell_of(rows, method="vat", metric="bag_accuracy"):
    layout = arrange(rows, metric, "method", METRICS, None)
    return next(cell for (_, row, _), cell in layout.cells.items() if row.value == method)


def half_width(values, ratio):
    """Nadeau and Bengio (2003): the variance of the mean of J values is s² (1/J + n_test / n_train)."""
    x = np.asarray(values)
    return stats.t.ppf(0.975, len(x) - 1) * math.sqrt(x.var(ddof=1) * (1 / len(x) + ratio))


def is_corrected(interval, values, ratio):
    assert interval.count == len(values)
    m = float(np.mean(values))
    half = half_width(values, ratio) / (m * (1 - m))
    ends = [np.log(end / (1 - end)) - np.log(m / (1 - m)) for end in (interval.lower, interval.upper)]
    return ends == pytest.approx([-half, half])


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(("train", "ratio"), [(None, 6 / 18), (15, 6 / 15)])
def test_the_ratio_is_of_the_bags_that_runs_tested_and_trained_on(tmp_path, older, train, ratio):
    """Five given folds under the default data.folds: 10, and a part of the training bags."""
    rows = study(tmp_path, dataset="manifest", repeats=1, partition="given folds", folds_key=10, train_bags=train,
                 older=older)  # fmt: skip
    cell = cell_of(rows)
    own = rows[rows["method"] == "vat"]["bag_accuracy"]
    assert cell.test_train_ratio == pytest.approx(ratio)
    assert is_corrected(cell.interval, own, ratio)
    assert f"takes a ratio of test to training bags of {ratio:.3g}." in " ".join(table(rows).text().split())


def test_given_partitions_count_every_fold_of_every_repeat(tmp_path):
    """Five repeats of ten fixed folds, as of the classical MIL sets: fifty test sets."""
    rows = study(tmp_path, dataset="features", repeats=2, partition="given partitions", folds_key=10)
    rows = rows.assign(test_set=[f"t{replicate}" for replicate in rows["replicate"]])
    own = rows[rows["method"] == "vat"]["bag_accuracy"]
    cell = cell_of(rows)
    assert (cell.interval.count, cell.planned) == (10, 10)
    assert is_corrected(cell.interval, own, 1 / 3)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("key", [10, 5])
def test_repeats_of_given_folds_are_averaged_and_count_once(tmp_path, older, key):
    rows = study(tmp_path, dataset="manifest", repeats=2, partition="given folds", folds_key=key, older=older)
    own = rows[rows["method"] == "vat"].sort_values("replicate")["bag_accuracy"].to_numpy().reshape(2, 5).mean(axis=0)
    cell = cell_of(rows)
    assert (cell.interval.count, cell.planned, cell.planned_runs, cell.status) == (5, 5, 10, "done")
    assert cell.interval.mean == pytest.approx(own.mean())
    assert is_corrected(cell.interval, own, 1 / 3)
    text = " ".join(table(rows).text().split())
    assert "5 folds (their repeats averaged) planned" in text and "each fold is counted once" in text
    # Paired differences and their test are of the same five values.
    (found,) = compare(rows, metric="bag_accuracy").frame().to_dict("records")
    plain = (
        rows[rows["method"] == "none"].sort_values("replicate")["bag_accuracy"].to_numpy().reshape(2, 5).mean(axis=0)
    )
    d = own - plain
    half = half_width(d, 1 / 3)
    assert (found["lower"], found["upper"]) == (pytest.approx(d.mean() - half), pytest.approx(d.mean() + half))
    t = d.mean() / math.sqrt(d.var(ddof=1) * (1 / 5 + 1 / 3))
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(t), 4)) and found["count"] == 5
    assert found["mean"] - found["baseline_mean"] == pytest.approx(found["difference"])


def test_repeats_that_are_dealt_anew_stay_apart(tmp_path):
    rows = study(tmp_path, repeats=2)
    cell = cell_of(rows)
    assert (cell.interval.count, cell.planned) == (10, 10)
    assert is_corrected(cell.interval, rows[rows["method"] == "vat"]["bag_accuracy"], 1 / 3)
    # Few groups have few partitions: a fold that is dealt twice is one.
    twice = rows["replicate"].isin([0, 7])
    rows.loc[twice, "test_set"] = "t-the-same"
    assert cell_of(rows).interval.count == 9


@pytest.mark.parametrize("older", [False, True])
def test_a_given_split_is_no_cross_validation(tmp_path, older):
    rows = study(tmp_path, dataset="manifest", folds=4, repeats=2, partition="given split", folds_key=10, older=older)
    own = rows[rows["method"] == "vat"]["instance_auc"]
    cell = cell_of(rows, metric="instance_auc")
    assert cell.test_train_ratio is None and cell.interval.kind == "t on the logit"
    assert is_corrected(cell.interval, own, 0.0)
    made = table(rows, pooled=pooled_rows(rows))
    text = " ".join(made.text().split())
    assert "(count; 8 trainings on the given split planned)" in text
    assert "Replicates share the given split: nothing is said of other test bags" in text
    assert "Replicates are new initialisations" in text
    assert "Nadeau" not in text and "fold" not in text.replace("folded", "")
    assert made.pooled is None and not made.not_pooled
    compared = " ".join(compare(rows).text().split())
    assert "new initialisations on one given split" in compared and "Wilcoxon" in compared
    assert dict(study_facts(rows))["replicates"] == "8 (trainings on one given split)"
    with pytest.raises(UserError, match="is of folds, and these replicates are none"):
        table(rows, test_train_ratio=0.2)


@pytest.mark.parametrize("older", [False, True])
def test_given_folds_are_pooled_whatever_the_key_says_and_a_lost_fold_is_named(tmp_path, older):
    rows = study(tmp_path, dataset="manifest", repeats=2, partition="given folds", folds_key=10, older=older,
                 failed=((1, 3),))  # fmt: skip
    pooled = pooled_rows(rows)
    assert pooled.groupby("method")["repeat"].apply(list).to_dict() == {"none": [0, 1], "vat": [1]}
    made = table(rows, pooled=pooled)
    text = " ".join(made.text().split())
    assert "Not pooled: vat, repeat 0 (lacks fold 3)." in text
    assert "Repeats of the same folds are averaged and counted once" in text
    (cell,) = [
        c for (_, row, column), c in made.pooled.cells.items() if (row.value, column.value) == ("none", "bag_auc")
    ]
    assert cell.interval.count == 1 and not cell.interval.has_bounds
    assert cell.interval.mean == pytest.approx(pooled[pooled["method"] == "none"]["bag_auc"].mean())
    lines = [one for one in csv.DictReader(io.StringIO(made.text("csv"))) if one["metric"] == "bag_auc"]
    counts = {one["method"]: (one["count"], one["planned"], one["status"]) for one in lines if one["kind"] == "value"}
    assert counts == {"none": ("5", "5", "done"), "vat": ("5", "5", "partial")}
    assert "(9 of 10 runs)" in text


def test_one_repeat_of_which_folds_are_missing_is_not_taken_for_fewer_folds(tmp_path):
    rows = study(tmp_path, images=60, folds=10, repeats=1, older=True)
    part = rows[rows["replicate"] < 5].copy()
    part.attrs = rows.attrs
    assert {one.fold_count for one in partitions_of(part).values()} == {10}
    assert pooled_rows(part).empty
    assert "lacks fold 5, 6, 7, 8, 9" in " ".join(table(part, pooled=pooled_rows(part)).text().split())


def test_without_counts_a_fold_validates_and_the_others_train(tmp_path):
    rows = study(tmp_path).drop(columns=["train_bags", "test_bags"])
    assert cell_of(rows).test_train_ratio == pytest.approx(1 / 3)


def test_drawn_bags_have_no_partition(tmp_path):
    rows = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,)).rows()
    assert partitions_of(rows) == {}
    own = rows[rows["method"] == "vat"]
    assert metric_interval(own, "bag_auc") == analysis.mean_interval(own["bag_auc"])


def test_what_a_file_keeps_gives_the_same_intervals(tmp_path):
    rows = study(tmp_path, dataset="manifest", repeats=2, partition="given folds", folds_key=10)
    for suffix in ("csv", "parquet"):
        export(rows, tmp_path / f"rows.{suffix}")
        again = analysis.load(tmp_path / f"rows.{suffix}")
        assert cell_of(again).interval == cell_of(rows).interval


def test_what_mlflow_keeps_of_a_partition_gives_the_same_intervals(tmp_path):
    """The store has numbers by replicate and facts of the rows, no names of test sets."""
    rows = study(tmp_path, dataset="manifest", repeats=2, partition="given folds", folds_key=10)
    own = rows[rows["method"] == "vat"].to_dict("records")
    facts = json.loads(row_facts(own))
    assert (facts["partition"], facts["fold_count"]) == ("given folds", 5)
    assert "fold_count" not in final_metrics(own, {}) and "train_bags/r000" in final_metrics(own, {})
    assert cell_of(rows.drop(columns="test_set")).interval == cell_of(rows).interval


@pytest.mark.parametrize("seed", range(6))
def test_intervals_of_any_folds_are_those_by_hand(tmp_path, seed):
    """Any numbers of folds, repeats and bags, repeats alike or not, some runs missing."""
    rng = np.random.default_rng(seed)
    folds, repeats = int(rng.integers(3, 8)), int(rng.integers(1, 4))
    alike, sizes = bool(rng.integers(2)), rng.integers(4, 30, folds)
    rows, units = [], {}
    for replicate in range(folds * repeats):
        repeat, fold = divmod(replicate, folds)
        name = f"t{fold}" if alike else f"t{fold}-{repeat}"
        trained = int(sizes.sum() - sizes[fold] - sizes[(fold + 1) % folds])
        for method in ("none", "vat"):
            there = replicate == 0 or rng.random() > 0.15
            value = float(rng.uniform(0.55, 0.95))
            rows.append({"study": "s", "config_id": method, "trial_id": method, "stage": "teacher", "method": method,
                         "dataset": "manifest", "folds": 10, "replicate": replicate, "generation": 0,
                         **({"status": "done", "repeat": repeat, "fold": fold, "bag_auc": value, "test_set": name,
                             "partition": "given folds" if alike else "dealt folds", "fold_count": folds,
                             "test_bags": int(sizes[fold]), "train_bags": trained} if there else
                            {"status": "missing"})})  # fmt: skip
            if there:
                units.setdefault((method, fold if alike else replicate), []).append(
                    (replicate, value, sizes[fold] / trained)
                )
    frame = pd.DataFrame(rows)
    frame.attrs.update(study="s", varied=[])
    layout = arrange(frame, "bag_auc", "method", METRICS, None)
    cells = {row.value: cell for (_, row, _), cell in layout.cells.items()}
    for method, cell in cells.items():
        own = [runs for (arm, _), runs in units.items() if arm == method]
        values = [np.mean([value for _, value, _ in runs]) for runs in own]
        ratio = np.mean([r for runs in own for *_, r in runs])
        assert cell.interval.count == len(values)
        if len(values) > 1:
            assert is_corrected(cell.interval, values, ratio)
    by_unit: dict = {}
    for (method, unit), runs in units.items():
        for replicate, value, _ in runs:
            by_unit.setdefault(unit, {}).setdefault(replicate, {})[method] = value
    d = [[v["vat"] - v["none"] for v in runs.values() if len(v) == 2] for runs in by_unit.values()]
    d = np.array([np.mean(one) for one in d if one])
    cell, other = cells["vat"], cells["none"]
    found = paired_difference(cell.values, other.values, test_train_ratio=cell.test_train_ratio, units=cell.units)
    assert found.count == len(d) and found.mean == pytest.approx(d.mean())
    if len(d) > 1:
        assert found.half_width == pytest.approx(half_width(d, cell.test_train_ratio))


@pytest.mark.parametrize("names", [["pilot", "full"], ["full", "pilot"]])
def test_runs_that_a_pilot_shares_are_units_of_the_larger_study_in_either_order(tmp_path, names):
    for name, repeats in (("pilot", 1), ("full", 3)):
        make_folds(tmp_path, name, images=30, partition="given folds", repeats=repeats)
    (cell, other), (alone, _) = (
        [*arrange(analysis.load(of, tmp_path), "bag_auc", "method", METRICS, None).cells.values()]
        for of in (names, "full")
    )
    assert cell.interval == alone.interval and cell.interval.count == cell.planned == 5
    assert paired_difference(cell.values, other.values, units=cell.units).count == 5
