"""How far a run that was trained again is from its record: all its results are compared, and nothing else."""

import math

import pytest

from d2l_study.study.trial.rerun_differences import differing_results, largest_difference
from d2l_study.study.trial.result_columns import is_metric

RESULTS = (
    "bag_auc", "bag_accuracy", "val_bag_auc", "val_bag_nll", "instance_auc", "instance_auc_within", "instance_auc_two",
    "instance_ap_within", "instance_threshold", "instance_f1_tuned", "instance_bias", "instance_nll_calibrated",
    "instance_brier_calibrated", "instance_froc", "instance_dice_tuned", "bagged_auc_weight", "bagged_auc_within",
    "val_distill_loss", "best_step", "steps_run",
)  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_is_compared(name):
    before = {"status": "done", **dict.fromkeys(RESULTS, 1)}
    now = {**before, name: 1.5}
    assert largest_difference(now, before) == 0.5 and differing_results(now, before) == {name: (1, 1.5)}
    assert largest_difference(before, dict(before)) == 0


@pytest.mark.parametrize("name", ["instance_visits", "train_seconds", "host", "threads", "labels_used", "attempts"])
def test_what_is_no_result_is_not_compared(name):
    assert largest_difference({"status": "done", name: 2}, {"status": "done", name: 1}) == 0


@pytest.mark.parametrize(("old", "new", "expected"), [
    (math.nan, math.nan, 0), (math.nan, None, 0), (math.inf, math.inf, 0), (0.5, math.nan, math.inf),
    (None, 0.5, math.inf), ("low", "low", 0), ("low", "high", math.inf), ("low", 0.5, math.inf),
])  # fmt: skip
def test_values_that_are_no_numbers_are_the_same_or_not(old, new, expected):
    assert largest_difference({"status": "done", "bag_x": new}, {"status": "done", "bag_x": old}) == expected


def test_a_column_that_an_earlier_version_did_not_write_is_not_compared():
    old, new = {"status": "done", "bag_auc": 0.5}, {"status": "done", "bag_auc": 0.5, "instance_froc": 0.9}
    assert largest_difference(new, old) == 0
    assert largest_difference(old, new) == math.inf and differing_results(old, new) == {"instance_froc": (0.9, None)}


def test_another_status_is_infinitely_far():
    assert largest_difference({"status": "failed", "bag_auc": 0.5}, {"status": "done", "bag_auc": 0.5}) == math.inf


def test_further_results_are_no_metrics_of_a_stored_model():
    assert [name for name in (*RESULTS, "instance_visits") if not is_metric(name)] == [
        "val_distill_loss", "best_step", "steps_run", "instance_visits",
    ]  # fmt: skip
