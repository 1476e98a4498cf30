"""Paired tests against published worked examples, R's values and calculations written out by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.intervals import mean_difference, mean_interval
from analysis.statistics.paired_tests import (
    EXACT_WITH_TIES,
    EXACT_WITHOUT_TIES,
    corrected_t,
    holm,
    paired_t,
    smallest_wilcoxon_p,
    wilcoxon,
)

# ---- paired tests
SLEEP = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]) - np.array(
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
)


def test_the_paired_t_test_is_students_own_example():
    # Student's sleep data: R prints t = -4.0621, df = 9, p-value = 0.002833 (help page of `sleep`).
    found = paired_t(SLEEP)
    assert (found.statistic, found.p) == (pytest.approx(-4.0621, abs=5e-5), pytest.approx(0.002833, abs=5e-7))
    wanted = stats.ttest_1samp(SLEEP, 0)
    assert (found.statistic, found.p) == (pytest.approx(wanted.statistic), pytest.approx(wanted.pvalue))
    assert paired_t(np.array([*SLEEP, math.nan])) == found


def test_wilcoxon_is_rs_documented_example():
    # Hollander and Wolfe 1973, depression scale; R's help of wilcox.test: V = 40, two-sided p = 0.03906.
    first = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    second = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    found = wilcoxon(first - second)
    assert found.statistic == 45 - 40
    assert found.p == pytest.approx(0.0390625)
    assert found.smallest_p == pytest.approx(2**-8)


@pytest.mark.parametrize(
    "differences", [[1, 1, 2, 3, -1, 4], [0, 0.5, 0.5, -0.5, 1, 2, 3], [0.1 + 0.2, 0.3, -0.3, 1.1, 2.2, 0.7]]
)
def test_wilcoxon_with_ties_and_zeros_is_exact(differences):
    d = np.round(np.array([x for x in differences if x]), 12)
    ranks = stats.rankdata(np.abs(d))
    centre = ranks.sum() / 2
    sums = [np.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=len(d))]
    wanted = np.mean(np.abs(np.array(sums) - centre) >= abs(ranks[d > 0].sum() - centre) - 1e-9)
    assert wilcoxon(np.array(differences)).p == pytest.approx(wanted)


@pytest.mark.parametrize("count", [2, 5, 10, 20])
def test_the_smallest_p_is_reached_when_all_pairs_agree_and_never_passed(count):
    rng = np.random.default_rng(count)
    assert wilcoxon(rng.uniform(0.1, 1, count)).p == pytest.approx(smallest_wilcoxon_p(count))
    assert min(wilcoxon(rng.normal(1, 1, count)).p for _ in range(30)) >= smallest_wilcoxon_p(count) - 1e-12
    assert smallest_wilcoxon_p(5) == 0.0625


@pytest.mark.parametrize("differences", [
    np.arange(1, 15) % 3 + 1.0, np.arange(1, 31) % 3 + 1.0, np.arange(1.0, 52), np.append(np.arange(14) % 3 + 1.0, 0),
], ids=["14 tied", "30 tied", "51", "14 tied and an equal pair"])  # fmt: skip
def test_the_smallest_p_of_the_approximation_is_its_own(differences):
    """Where ties or many pairs leave the normal approximation, no signs of the differences give the exact floor."""
    found = wilcoxon(differences)  # all of them on one side
    moved = differences[differences != 0]
    assert found.smallest_p == found.p == stats.wilcoxon(moved, method="asymptotic").pvalue
    assert found.smallest_p > 2 * smallest_wilcoxon_p(len(moved))
    signs = np.random.default_rng(1).choice([-1, 1], (40, len(differences)))
    others = [wilcoxon(differences * one) for one in signs]
    assert all(one.p >= found.smallest_p == pytest.approx(one.smallest_p) for one in others)


def test_up_to_so_many_pairs_without_and_with_ties_the_test_is_exact():
    tied = np.arange(1, EXACT_WITH_TIES + 1) % 3 + 1.0
    for differences in (tied, np.arange(1.0, EXACT_WITHOUT_TIES + 1)):
        found = wilcoxon(differences)
        assert found.p == pytest.approx(found.smallest_p) == smallest_wilcoxon_p(len(differences))


def test_no_differences_and_no_spread():
    assert wilcoxon(np.zeros(5)).p == paired_t(np.zeros(5)).p == 1.0
    assert math.isnan(paired_t(np.full(5, 0.1)).p)
    assert math.isnan(paired_t(np.array([0.1])).p) and math.isnan(wilcoxon(np.array([math.nan])).p)


def test_corrected_t_is_scikit_learns_documented_example():
    # "Statistical comparison of models using grid search" of scikit-learn's gallery: corrected t 0.750 with one-sided
    # p 0.227, uncorrected 2.611 with 0.005, over ten times ten folds of 90 training and 10 test points.
    from sklearn.datasets import make_moons
    from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
    from sklearn.svm import SVC

    x, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(kernel=kernel, random_state=0), x, y, cv=folds, scoring="roc_auc")
        for kernel in ("rbf", "linear")
    )
    corrected, plain = corrected_t(rbf - linear, 10 / 90), paired_t(rbf - linear)
    assert (round(corrected.statistic, 3), round(corrected.p / 2, 3)) == (0.750, 0.227)
    assert (round(plain.statistic, 3), round(plain.p / 2, 3)) == (2.611, 0.005)
    interval = mean_difference(rbf - linear, test_train_ratio=10 / 90)
    assert interval.kind == "corrected t"
    half = stats.t.ppf(0.975, 99) * np.std(rbf - linear, ddof=1) * math.sqrt(1 / 100 + 1 / 9)
    assert interval.half_width == pytest.approx(half)
    # The interval and the test agree on where p is 0.05.
    level = 1 - corrected.p
    assert mean_difference(rbf - linear, level, 10 / 90).lower == pytest.approx(0, abs=1e-12)
    assert mean_interval(rbf, test_train_ratio=1 / 9).kind == "corrected t on the logit"
    assert mean_interval(rbf, test_train_ratio=1 / 9).half_width > mean_interval(rbf).half_width


def test_holm_is_rs_p_adjust():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") is 0.03 0.06 0.06 0.02
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, math.nan, 0.6, 0.6])[::2] == pytest.approx([0.03, 1.0])
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_rejection():
    rng = np.random.default_rng(5)
    p = rng.uniform(size=(4000, 6))
    any_rejected = np.mean([min(holm(row)) < 0.05 for row in p])
    assert any_rejected == pytest.approx(0.05, abs=0.011)
