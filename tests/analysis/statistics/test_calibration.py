"""Calibration error, Brier score and temperature against calculations of their own."""

import math

import numpy as np
import pytest
from make_scores import some_scores
from scipy.optimize import minimize_scalar
from sklearn import metrics

from analysis.statistics.calibration import (
    calibration_error,
    calibration_of,
    reliability_bins,
)
from d2l_study.learning.calibration import fit_temperature
from d2l_study.learning.metrics import probability


def test_calibration_error_by_a_loop():
    labels, logits = some_scores(3)
    scores, error = probability(logits), 0.0
    for low in range(10):
        inside = [i for i, p in enumerate(scores) if low / 10 <= p < (low + 1) / 10 or (low == 9 and p == 1)]
        if inside:
            error += abs(sum(labels[i] for i in inside) - sum(scores[i] for i in inside)) / len(scores)
    assert calibration_error(labels, scores) == pytest.approx(error)
    assert calibration_of((labels, logits), None).brier == pytest.approx(metrics.brier_score_loss(labels, scores))
    assert reliability_bins(labels, scores)[0].sum() == len(scores)


@pytest.mark.parametrize("factor", [0.2, 1.0, 6.0])
def test_the_temperature_is_that_of_a_direct_search(factor):
    labels, logits = some_scores(4)
    logits = logits * factor
    loss = lambda log_t: np.mean(np.logaddexp(0, -(2 * labels - 1) * logits / math.exp(log_t)))  # noqa: E731
    best = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(labels, logits) == pytest.approx(math.exp(best), rel=1e-4)


def test_a_temperature_stays_within_its_bounds_and_needs_both_classes():
    labels = np.array([0, 0, 1, 1])
    assert fit_temperature(labels, np.array([-1.0, -2, 1, 2])) == 0.05
    assert fit_temperature(labels, np.array([1.0, 2, -1, -2])) == 20
    assert np.isnan(calibration_of((labels, np.ones(4)), (np.ones(4, int), np.ones(4))).temperature)
