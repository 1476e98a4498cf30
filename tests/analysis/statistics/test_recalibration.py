"""Slope and intercept against scikit-learn's logistic regression, and where they have no finite estimate."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from analysis.statistics.recalibration import recalibration, without_recalibration
from d2l_study.learning.metrics import probability


def _scores(rng, count=300, intercept=0.4, slope=0.6):
    logit = rng.normal(0.5, 2.0, count)
    return (rng.random(count) < probability(intercept + slope * logit)).astype(int), logit


@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_the_fit_is_that_of_scikit_learn(shift):
    rng = np.random.default_rng(1)
    label, logit = _scores(rng)
    weight = rng.integers(0, 4, len(label)).astype(float)
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(logit[:, None], label, weight)
    intercept, slope = recalibration(label, logit + shift, weight)
    assert slope == pytest.approx(fitted.coef_[0, 0], rel=1e-5)
    assert intercept == pytest.approx(fitted.intercept_[0] - shift * slope, rel=1e-4)


def test_a_weight_is_so_many_copies():
    rng = np.random.default_rng(2)
    label, logit = _scores(rng, 60)
    weight = rng.integers(0, 3, 60)
    copies = np.repeat(np.arange(60), weight)
    assert recalibration(label, logit, weight) == pytest.approx(recalibration(label[copies], logit[copies]))


def test_calibrated_scores_have_intercept_0_and_slope_1():
    label, logit = _scores(np.random.default_rng(3), 200_000, 0.0, 1.0)
    assert recalibration(label, logit) == pytest.approx((0, 1), abs=0.03)


@pytest.mark.parametrize(
    ("label", "logit", "said"),
    [
        ([0, 0, 1, 1], [0.0, 1.0, 2.0, 3.0], "separate"),
        ([1, 1, 0, 0], [0.0, 1.0, 2.0, 3.0], "separate"),  # the wrong way round: a slope of −∞
        ([0, 0, 1, 1], [0.0, 1.0, 1.0, 3.0], "separate"),  # but for a tie, which does not bound the slope either
        ([0, 1, 0, 1], [2.0, 2.0, 2.0, 2.0], "the same"),
        ([1, 1, 1], [0.0, 1.0, 2.0], "one class"),
    ],
)
def test_without_an_estimate_it_is_nan_and_the_reason_is_told(label, logit, said):
    label, logit = np.array(label), np.array(logit)
    assert said in without_recalibration(label, logit)
    assert all(map(math.isnan, recalibration(label, logit)))


def test_what_has_no_weight_does_not_overlap():
    label, logit = np.array([0, 0, 1, 1, 0]), np.array([0.0, 1.0, 2.0, 3.0, 2.5])
    assert not math.isnan(recalibration(label, logit)[1])
    assert math.isnan(recalibration(label, logit, np.array([1, 1, 1, 1, 0]))[1])
