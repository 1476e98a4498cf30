"""Rows that were tested on different bags are neither paired nor ranked, and said to be."""

import pytest
from make_folds import make_folds
from make_rows import make_rows
from table_lines import table_cells

import analysis
from analysis.cells.bag_source import BagSource
from analysis.cells.best import compare_with_best
from analysis.tables.comparison import compare
from analysis.tables.study_table import table
from d2l_study.errors import UserError

AUCS = [0.80, 0.82, 0.84, 0.83, 0.85, 0.81, 0.86, 0.80, 0.82, 0.84, 0.83, 0.85]
BETTER = [auc + 0.05 + 0.002 * (i % 3) for i, auc in enumerate(AUCS)]
DEALT = {"dataset": "colon", "mean_bag_size": None, "fold": 0, "folds": 3, "partition": "dealt folds", "fold_count": 3}


def said(made):
    return " ".join(made.text(explain=True).split())


@pytest.mark.parametrize(
    ("key", "ours", "theirs"),
    [("seed", 1, 2), ("test_bags", 60, 80), ("witness_rate", None, 0.3), ("positive_digit", 9, 4),
     ("dataset", "mnist", "colon_synthetic")],
)  # fmt: skip
def test_arms_on_other_bags_are_neither_paired_nor_ranked_and_the_note_says_by_which_key(key, ours, theirs):
    arms = [("none", ours, AUCS), ("vat", ours, BETTER), ("adv", theirs, BETTER)]
    rows = make_rows([({"method": m, "num_bags": 50, key: value}, aucs) for m, value, aucs in arms], replicates=12)
    made = table(rows)
    assert [one.text for one in made.all_differences] == ["vat − none"]
    assert {cell_key[1].value for cell_key in compare_with_best(made.layout)} == {"none"}
    null = {None: "null"}
    assert (
        f"Tested on different bags, and so neither paired nor ranked against each other ({key} = "
        f"{null.get(ours, ours)}: none, vat; {key} = {theirs}: adv)." in said(made)
    )
    tests = compare(rows)
    assert {one.row.value for one in tests.found} == {"vat"}
    assert (
        f"the two sides were tested on different bags (adv − none: {key} {theirs} against {null.get(ours, ours)})."
        in said(tests)
    )
    with pytest.raises(UserError, match=rf"no row was tested on the same bags as its baseline \(adv − none: {key} "):
        compare(rows[rows["method"] != "vat"])


def test_of_several_baselines_it_is_the_one_on_the_same_bags():
    arms = [("none", 1, AUCS), ("none", 2, AUCS), ("vat", 2, BETTER)]
    rows = make_rows([({"method": m, "num_bags": 50, "seed": seed}, aucs) for m, seed, aucs in arms], replicates=12)
    made = table(rows)
    assert [one.text for one in made.all_differences] == ["vat − none (seed=2)"]
    assert [one.baseline.text for one in compare(rows).found] == ["none (seed=2)"]


def test_what_labels_say_is_not_said_again():
    both = [("none", rate, AUCS) for rate in (0.1, 0.3)] + [("vat", rate, BETTER) for rate in (0.1, 0.3)]
    rows = make_rows([({"method": m, "num_bags": 50, "witness_rate": rate}, aucs) for m, rate, aucs in both],
                     varied=["witness_rate"], replicates=12)  # fmt: skip
    assert "different bags" not in said(table(rows)) + said(compare(rows))
    assert len(table(rows).all_differences) == 2


def test_training_bags_may_differ_and_then_both_labels_say_so():
    """Folds, whose columns are metrics: a number of training bags stands nowhere else."""
    arms = [("none", 100, AUCS), ("vat", 50, BETTER), ("vat", 100, BETTER)]
    rows = make_rows([({**DEALT, "method": m, "num_bags": n}, aucs) for m, n, aucs in arms], replicates=12)
    made = table(rows)
    assert [one.text for one in made.all_differences] == [
        "vat (n = 50) − none (n = 100)",
        "vat (n = 100) − none (n = 100)",
    ]
    # Of one number of bags they are rivals.
    assert {(key[1].text, one.best[1].text) for key, one in made.tested.items()} == {
        ("none (n = 100)", "vat (n = 100)")
    }
    arms = [("none", None, AUCS), ("mixup", 40, BETTER)]
    rows = make_rows([({**DEALT, "method": m, "num_bags": n}, aucs) for m, n, aucs in arms], replicates=12)
    assert [one.text for one in table(rows).all_differences] == ["mixup (n = 40) − none (n = null)"]
    assert "n: training bags (null: all that a fold or split leaves)." in said(table(rows))
    arms = [("none", 0.0, AUCS), ("vat", 0.2, BETTER)]
    rows = make_rows([({"method": m, "num_bags": 50, "label_noise": n}, aucs) for m, n, aucs in arms], replicates=12)
    assert [one.text for one in table(rows).all_differences] == ["vat (label_noise=0.2) − none (label_noise=0)"]
    assert not table(rows).tested


def test_what_older_rows_do_not_say_of_training_bags_stands_in_no_label():
    arms = [("none", {"num_bags": None, "label_noise": None}), ("vat", {"num_bags": 50, "label_noise": 0.0})]
    rows = make_rows([({"method": m, **values}, AUCS) for m, values in arms])
    assert {row.text for row in table(rows, column_key="metric").layout.rows} == {"none", "vat"}


def test_labels_of_arms_that_train_on_the_same_bags_stay_short():
    arms = [("none", 50, AUCS), ("none", 100, AUCS), ("vat", 50, BETTER), ("vat", 100, BETTER)]
    rows = make_rows([({"method": m, "num_bags": n}, aucs) for m, n, aucs in arms], replicates=12)
    assert {*table_cells(table(rows).text())} >= {"none", "vat", "vat − none"}


@pytest.mark.parametrize(
    ("partition", "pairs"), [("dealt folds", 0), ("given folds", 1), ("given split", 1), ("given splits", 0)]
)
def test_test_sets_tell_whether_folds_of_two_studies_are_the_same(tmp_path, partition, pairs):
    """Those that the user gave are the same whatever seed the study has; of others rows say so."""
    how = {"dataset": "manifest", "images": 24, "folds": 3, "repeats": 1, "partition": partition}
    make_folds(tmp_path, name="A", methods=("none",), **how)
    make_folds(tmp_path, name="B", methods=("vat",), seed=1, **how)
    rows = analysis.load(["A", "B"], tmp_path)
    if partition.startswith("given") and pairs:  # drawn by the helper from the seed
        for replicate in rows["replicate"].unique():
            same = rows["replicate"] == replicate
            rows.loc[same, "test_set"] = rows.loc[same, "test_set"].iloc[0]
    made = table(rows, "bag_auc")
    assert len(made.all_differences) == pairs
    assert ("tested on different bags" in said(made).lower()) == (not pairs)


def test_what_rows_do_not_say_parts_nothing_but_a_null_is_a_value():
    full = BagSource({"dataset": "mnist", "seed": 1, "test_bags": 60, "witness_rate": 0.3})
    assert not full.differences(BagSource({"dataset": "mnist", "witness_rate": 0.3}))
    assert full.differences(BagSource({"dataset": "mnist"})) == {"witness_rate": (0.3, None)}
    assert BagSource({"seed": 1}).differences(BagSource({"seed": 2}, {0: "t1"})) == {"seed": (1, 2)}


def test_equal_folds_of_two_data_sets_are_told_by_their_instances_and_preparation_tells_nothing():
    def source(count, test_set="t1", **keys):
        return BagSource(keys, {3: test_set}, {3: count})

    assert source(120).differences(source(131)) == {"test_instances of r003": (120, 131)}
    assert not source(120, white_above=0.9).differences(source(131))
    assert not source(120).differences(source(120))
    assert source(120).differences(source(120, "t2")) == {"test_set of r003": ("t1", "t2")}
