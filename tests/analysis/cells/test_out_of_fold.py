"""Pooled out-of-fold metrics."""

import csv
import io

import numpy as np
import pytest
from make_folds import make_folds
from sklearn.metrics import f1_score, roc_auc_score

import analysis
from analysis.cells.out_of_fold import pooled_rows
from analysis.cells.partitions import partitions_of
from analysis.tables.study_table import table


def test_attention_has_no_pooled_figure_at_a_probability(tmp_path):
    make_folds(tmp_path, images=20, repeats=1)
    rows = analysis.load("folded", tmp_path)
    rows.loc[rows["method"] == "vat", "stage"] = "attention"
    pooled = pooled_rows(rows).set_index("method")
    assert np.isfinite(pooled.loc["none", "instance_f1"]) and np.isfinite(pooled.loc["vat", "instance_auc"])
    assert pooled.loc["vat", ["instance_f1", "instance_accuracy", "bag_nll", "bag_brier"]].isna().all()


def test_given_splits_whose_tests_overlap_are_not_pooled(tmp_path):
    make_folds(tmp_path, images=20, repeats=1, partition="given splits")
    rows = analysis.load("folded", tmp_path)
    assert pooled_rows(rows).empty
    made = table(rows, pooled=pooled_rows(rows))
    headings = [group.heading for group in made.sheet().panels[0].groups]
    assert not [heading for heading in headings if heading.startswith("all folds")]
    (one,) = {partition.fold_count for partition in partitions_of(rows).values()}
    assert one is None


@pytest.mark.slow
def test_pooled_figures_are_those_of_all_predictions_of_a_repeat(fold_rows, folds_root):
    pooled = pooled_rows(fold_rows)
    # The first repeat of `none` lacks a fold: it is not pooled.
    assert pooled[pooled["method"] == "none"]["repeat"].tolist() == [1, 2]
    stored = analysis.load_predictions("folded", folds_root, split="test", level="bag", method="vat", repeat=2)
    assert len(stored) == stored["bag_index"].nunique() == 60
    label, logit = stored["label"].to_numpy(int), stored["logit"].to_numpy()
    (own,) = pooled[(pooled["method"] == "vat") & (pooled["repeat"] == 2)].to_dict("records")
    assert own["bag_auc"] == pytest.approx(roc_auc_score(label, logit))
    assert own["bag_f1"] == pytest.approx(f1_score(label, logit > 0))
    made = table(fold_rows, pooled=pooled)
    (group,) = [g for g in made.sheet().panels[0].groups if g.heading.startswith("all folds")]
    values = pooled[pooled["method"] == "vat"]["bag_auc"]
    assert group.lines[1].entries[4].value == pytest.approx(values.mean())
    assert group.lines[1].entries[4].count == "(3)"
    lines = list(csv.DictReader(io.StringIO(made.text("csv"))))
    (line,) = [one for one in lines if (one["kind"], one["metric"], one["method"]) ==
               ("pooled_out_of_fold", "bag_auc", "vat")]  # fmt: skip
    assert float(line["mean"]) == pytest.approx(values.mean())
