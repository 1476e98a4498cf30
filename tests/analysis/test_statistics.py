"""The tests behind the tables, against published worked examples, R's values and calculations written out by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from analysis.statistics.cluster_bootstrap import cluster_bootstrap
from analysis.statistics.delong import delong_covariance, delong_test
from analysis.statistics.intervals import mean_difference, mean_interval
from analysis.statistics.paired_tests import corrected_t, holm, paired_t, smallest_wilcoxon_p, wilcoxon

# 113 patients with aneurysmal subarachnoid haemorrhage: outcome (1 poor), WFNS grade, S100β in µg/l. Turck et al.,
# Intensive Care Medicine 36, 2010; the example data `aSAH` of the R package pROC. The wanted values are what
# pROC 1.18.0 under R 4.2.2 prints for roc.test(outcome, wfns, s100b, method = "delong") and ci.auc(outcome, s100b).
OUTCOME = np.array([*map(int, (
    "00001101001011001011101000000000100110110000000001100010001010011101101111000110100000010000000000001111110001000"
))])  # fmt: skip
WFNS = np.array([*map(int, (
    "11113254125255125225211112121134214541425511241125521251222151125214524414121421232421451154221113125225552445111"
))])  # fmt: skip
S100B = np.array([
    0.13, 0.14, 0.1, 0.04, 0.13, 0.1, 0.47, 0.16, 0.18, 0.1, 0.12, 0.1, 0.44, 0.71, 0.04, 0.08, 0.49, 0.04, 0.07,
    0.33, 0.09, 0.09, 0.07, 0.11, 0.07, 0.17, 0.07, 0.11, 0.13, 0.19, 0.05, 0.16, 0.41, 0.14, 0.34, 0.35, 0.48, 0.09,
    0.96, 0.25, 0.5, 0.46, 0.16, 0.07, 0.43, 0.45, 0.11, 0.08, 0.09, 0.86, 0.52, 0.08, 0.06, 0.13, 2.07, 0.1, 0.14,
    0.15, 0.07, 0.06, 0.77, 0.05, 0.09, 0.3, 0.03, 0.09, 0.04, 0.23, 0.7, 0.09, 0.27, 0.71, 0.08, 0.26, 0.08, 0.16,
    0.09, 0.13, 0.1, 0.08, 0.11, 0.33, 0.11, 0.28, 0.07, 0.1, 0.32, 0.22, 0.07, 0.05, 0.24, 0.38, 0.1, 0.15, 0.08,
    0.14, 0.1, 0.07, 0.04, 0.19, 0.56, 0.14, 0.58, 0.32, 0.82, 0.74, 0.15, 0.47, 0.17, 0.44, 0.15, 0.5, 0.48,
])  # fmt: skip


# ---- DeLong
def test_delong_is_pROCs_on_its_own_example():
    found = delong_test(OUTCOME, WFNS, S100B)
    assert (found.first, found.second) == (pytest.approx(0.8236788618, abs=1e-10), pytest.approx(0.7313685637))
    assert found.z == pytest.approx(2.2089835914, abs=1e-9)
    assert found.p == pytest.approx(0.0271757822, abs=1e-9)
    assert (found.lower, found.upper) == (pytest.approx(0.0104061770), pytest.approx(0.1742144192))
    assert (found.positives, found.negatives) == (41, 72)
    auc, covariance = delong_covariance(OUTCOME, S100B[None])
    half = stats.norm.ppf(0.975) * math.sqrt(covariance[0, 0])
    assert (auc[0] - half, auc[0] + half) == (pytest.approx(0.6301182, abs=1e-7), pytest.approx(0.8326189, abs=1e-7))


def test_delong_is_its_definition_written_out_over_all_pairs():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 60)
    scores = np.round(rng.normal(label, 1.2, (3, 60)), 1)  # rounded, so that there are ties
    positive, negative = scores[:, label == 1], scores[:, label == 0]
    wins = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (positive[:, :, None] == negative[:, None, :])
    m, n = wins.shape[1:]
    wanted = np.cov(wins.mean(2)) / m + np.cov(wins.mean(1)) / n  # DeLong et al. 1988, equations 4 to 7
    auc, covariance = delong_covariance(label, scores)
    np.testing.assert_allclose(auc, [roc_auc_score(label, s) for s in scores])
    np.testing.assert_allclose(covariance, wanted)


def test_delong_holds_its_level_under_no_difference():
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    shared = rng.normal(label, 1, (1500, 200))
    p = [delong_test(label, *(one + rng.normal(0, 0.7, (2, 200)))).p for one in shared]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.017)  # three standard errors


def test_delong_without_a_difference_and_without_a_class():
    label = np.arange(20) % 2
    scores = np.linspace(0, 1, 20)
    same = delong_test(label, scores, 3 * scores - 1)
    assert (same.z, same.p, same.difference) == (0.0, 1.0, 0.0)
    one_class = delong_test(np.ones(5, int), scores[:5], scores[:5])
    assert math.isnan(one_class.first) and math.isnan(one_class.p)
    with pytest.raises(ValueError, match="0 or 1"):
        delong_test(np.array([0, 1, -1]), scores[:3], scores[:3])
    with pytest.raises(ValueError, match="NaN"):
        delong_test(label, scores, np.where(label, np.nan, scores))
    with pytest.raises(ValueError, match="expected"):
        delong_covariance(label, scores[None, :5])


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


# ---- cluster bootstrap
def _images(rng, images=40, patches=30, gain=0.0):
    """Patches whose scores share an image's own shift; images hold mostly one class, as images of tissue do."""
    image = np.repeat(np.arange(images), patches)
    label = (rng.random(len(image)) < rng.choice([0.1, 0.9], images)[image]).astype(int)
    shared = rng.normal(0, 1, images)[image]
    first = (1 + gain) * label + shared + rng.normal(0, 1, images)[image] + rng.normal(0, 1, len(image))
    second = label + shared + rng.normal(0, 1, images)[image] + rng.normal(0, 1, len(image))
    return label, first, second, image


def test_cluster_bootstrap_is_the_resampling_written_out():
    rng = np.random.default_rng(1)
    label, first, second, image = _images(rng, images=12, patches=8)
    first, second = np.round(first, 1), np.round(second, 1)  # ties
    found = cluster_bootstrap(label, first, second, image, resamples=300, seed=7)
    assert found.first == pytest.approx(roc_auc_score(label, first))
    assert found.difference == pytest.approx(roc_auc_score(label, first) - roc_auc_score(label, second))
    draws, values = np.random.default_rng(7), []
    for _ in range(300):
        chosen = np.concatenate([np.flatnonzero(image == i) for i in draws.integers(0, 12, 12)])
        values.append(roc_auc_score(label[chosen], first[chosen]) - roc_auc_score(label[chosen], second[chosen]))
    assert (found.lower, found.upper) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    assert found.p == pytest.approx(min(1, 2 * (min(np.sum(np.array(values) <= 0), np.sum(np.array(values) >= 0)) + 1)
                                        / 301))  # fmt: skip
    assert (found.clusters, found.instances, found.smallest_p) == (12, 96, pytest.approx(2 / 301))


def test_patches_counted_as_independent_are_too_sure_and_whole_images_are_not():
    rng = np.random.default_rng(2)
    wrong = {"patches": 0, "images": 0}
    for _ in range(150):
        label, first, second, image = _images(rng)
        wrong["patches"] += delong_test(label, first, second).p < 0.05
        wrong["images"] += cluster_bootstrap(label, first, second, image, resamples=199).p < 0.05
    assert wrong["patches"] / 150 > 0.2
    assert wrong["images"] / 150 < 0.12


def test_a_single_image_or_class_says_nothing():
    label = np.array([0, 1, 0, 1])
    one_image = cluster_bootstrap(label, label + 0.5, label, np.zeros(4), resamples=20)
    assert math.isnan(one_image.p) and math.isnan(one_image.lower)
    one_class = cluster_bootstrap(np.ones(4), label, label, np.arange(4), resamples=20)
    assert math.isnan(one_class.first) and one_class.resamples == 0
    alone = cluster_bootstrap(label, label + 0.5, None, np.arange(4), resamples=50)
    assert alone.difference == alone.first == 1.0 and math.isnan(alone.p)
