"""Weighted metrics against scikit-learn on the bags written out as often as they count."""

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from analysis.statistics.calibration import calibration_error
from analysis.statistics.recalibration import recalibration
from analysis.statistics.weighted_classification import probability_metrics, threshold_metrics
from d2l_study.learning.metrics import probability


@pytest.fixture
def drawn():
    """Labels, logits and clusters of 40 bags of 15 patients, weights, and the bags written out."""
    rng = np.random.default_rng(5)
    cluster = np.sort(rng.integers(0, 15, 40))
    label = rng.integers(0, 2, 40)
    logit = label + rng.normal(0, 2, 40)
    weight = rng.integers(0, 4, 15).astype(float)
    copies = np.repeat(np.arange(40), weight[cluster].astype(int))
    return label, logit, cluster, weight, copies


def test_metrics_at_a_threshold(drawn):
    label, logit, cluster, weight, copies = drawn
    called = logit > 0.3
    found = {name: metric(weight) for name, metric in threshold_metrics(label, called, cluster, 15).items()}
    y, p = label[copies], called[copies]
    expected = {
        "accuracy": sk.accuracy_score(y, p), "balanced_accuracy": sk.balanced_accuracy_score(y, p),
        "sensitivity": sk.recall_score(y, p), "specificity": sk.recall_score(y, p, pos_label=0),
        "precision": sk.precision_score(y, p), "f1": sk.f1_score(y, p),
    }  # fmt: skip
    assert found == pytest.approx(expected)


def test_metrics_of_probabilities(drawn):
    label, logit, cluster, weight, copies = drawn
    found = {name: metric(weight) for name, metric in probability_metrics(label, logit, cluster, 15).items()}
    y, s = label[copies], probability(logit[copies])
    intercept, slope = recalibration(y, logit[copies])
    expected = {
        "brier": sk.brier_score_loss(y, s), "log_loss": sk.log_loss(y, s), "ece": calibration_error(y, s),
        "calibration_slope": slope, "calibration_intercept": intercept,
    }  # fmt: skip
    assert found == pytest.approx(expected)


def test_slope_and_intercept_follow_each_weight(drawn):
    label, logit, cluster, weight, _ = drawn
    found = probability_metrics(label, logit, cluster, 15)
    once = np.ones(15)
    assert found["calibration_slope"](once) == pytest.approx(recalibration(label, logit)[1])
    assert found["calibration_intercept"](weight) == pytest.approx(recalibration(label, logit, weight[cluster])[0])


def test_ratios_of_nothing_are_nan():
    label, cluster = np.zeros(3, int), np.arange(3)
    found = threshold_metrics(label, np.zeros(3, bool), cluster, 3)
    values = {name: metric(np.ones(3)) for name, metric in found.items()}
    assert values["accuracy"] == values["specificity"] == 1
    assert all(math.isnan(values[name]) for name in ("balanced_accuracy", "sensitivity", "precision", "f1"))
    assert math.isnan(probability_metrics(label, np.zeros(3), cluster, 3)["brier"](np.zeros(3)))
