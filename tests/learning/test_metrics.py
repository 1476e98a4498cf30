"""Metrics equal scikit-learn's, ties included; what is not defined is NaN."""

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn

from d2l_study.learning import metrics
from d2l_study.learning.prediction import bag_metrics

CASES = ("continuous", "ties", "many ties", "imbalanced", "huge", "constant")


def case(name, seed=0):
    rng = np.random.default_rng(seed)
    count = 300
    label = (rng.random(count) < (0.02 if name == "imbalanced" else 0.4)).astype(np.int8)
    label[:2] = 0, 1
    score = rng.normal(label, 1.0)
    score = {"ties": np.round(score, 1), "many ties": np.round(score), "huge": 1e4 * score,
             "constant": np.zeros(count)}.get(name, score)  # fmt: skip
    return label, score


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_rankings_equal_scikit_learn(name, seed):
    label, score = case(name, seed)
    assert metrics.auc(label, score) == pytest.approx(sklearn.roc_auc_score(label, score), abs=1e-12)
    assert metrics.average_precision(label, score) == pytest.approx(
        sklearn.average_precision_score(label, score), abs=1e-12
    )


@pytest.mark.parametrize("name", ["continuous", "ties", "imbalanced"])
def test_probabilities_equal_scikit_learn(name):
    label, logit = case(name)
    p = 1 / (1 + np.exp(-logit))
    assert metrics.log_loss(label, logit) == pytest.approx(sklearn.log_loss(label, p), rel=1e-9)
    assert metrics.brier(label, logit) == pytest.approx(sklearn.brier_score_loss(label, p), rel=1e-9)


def test_log_loss_of_certain_and_wrong_is_the_logit_not_a_clipped_constant():
    assert metrics.log_loss(np.array([0, 1]), np.array([1000.0, 1000.0])) == pytest.approx(500.0)
    assert metrics.brier(np.array([0, 1]), np.array([1000.0, 1000.0])) == pytest.approx(0.5)


@pytest.mark.parametrize("threshold", [0.0, 0.3, -2.0])
def test_threshold_metrics_equal_scikit_learn(threshold):
    label, logit = case("ties")
    called = logit > threshold
    assert metrics.at_threshold(label, logit, threshold) == pytest.approx({
        "accuracy": sklearn.accuracy_score(label, called), "precision": sklearn.precision_score(label, called),
        "recall": sklearn.recall_score(label, called), "f1": sklearn.f1_score(label, called),
    })  # fmt: skip


def test_auc_is_invariant_under_rank_preserving_maps_and_flips():
    label, score = case("ties")
    area = metrics.auc(label, score)
    assert metrics.auc(label, np.exp(score)) == pytest.approx(area, abs=1e-12)
    assert metrics.auc(label, -score) == pytest.approx(1 - area, abs=1e-12)
    assert metrics.auc(1 - label, score) == pytest.approx(1 - area, abs=1e-12)


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_has_no_auc(only):
    label, score = np.full(4, only), np.arange(4.0)
    assert math.isnan(metrics.auc(label, score))
    assert math.isnan(metrics.average_precision(label, score)) == (only == 0)


def test_undefined_ratios_are_nan():
    nothing_called = metrics.at_threshold(np.array([0, 1]), np.array([-1.0, -1.0]))
    assert math.isnan(nothing_called["precision"]) and nothing_called["recall"] == 0 and nothing_called["f1"] == 0
    nothing_positive = metrics.at_threshold(np.array([0, 0]), np.array([-1.0, 1.0]))
    assert math.isnan(nothing_positive["recall"]) and nothing_positive["precision"] == 0
    assert math.isnan(metrics.at_threshold(np.array([0]), np.array([-1.0]))["f1"])


@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        ([0, 1], [0.0], "one length"), ([[0, 1]], [[0.0, 1.0]], "vectors"), ([0, -1], [0.0, 1.0], "0 or 1"),
        ([0, 2], [0.0, 1.0], "0 or 1"), ([0, 1], [0.0, math.nan], "NaN"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("metric", ["auc", "average_precision", "log_loss", "brier", "at_threshold"])
def test_what_cannot_be_scored_is_refused(metric, label, score, message):
    with pytest.raises(ValueError, match=message):
        getattr(metrics, metric)(np.array(label), np.array(score))


def test_bag_metrics_carry_their_prefix():
    label, logit = case("continuous")
    found = bag_metrics(label, logit, "val_bag")
    assert set(found) == {f"val_bag_{m}" for m in
                          ("auc", "ap", "nll", "brier", "accuracy", "precision", "recall", "f1")}  # fmt: skip
    assert found["val_bag_auc"] == metrics.auc(label, logit) and found["val_bag_nll"] == metrics.log_loss(label, logit)
