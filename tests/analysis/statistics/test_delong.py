"""DeLong's test against its published example, its definition, and its level by simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from analysis.statistics.delong import delong_covariance, delong_interval, delong_test

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


# ---- Groups of bags
def test_bags_that_are_groups_of_their_own_have_delongs_variance():
    groups = np.random.default_rng(1).permutation(len(OUTCOME))
    _, alone = delong_covariance(OUTCOME, np.stack([WFNS, S100B]))
    _, grouped = delong_covariance(OUTCOME, np.stack([WFNS, S100B]), groups)
    # A bag of one class contributes nothing to the terms between the classes.
    np.testing.assert_allclose(grouped, alone)


def test_bags_said_twice_are_no_more_bags():
    """As groups of two they have the variance of the bags said once; as bags by themselves about half of it."""
    _, once = delong_covariance(OUTCOME, S100B[None])
    label, score, group = np.tile(OUTCOME, 2), np.tile(S100B, 2)[None], np.tile(np.arange(len(OUTCOME)), 2)
    assert delong_covariance(label, score, group)[1] == pytest.approx(once)
    assert delong_covariance(label, score)[1] == pytest.approx(once / 2, rel=0.02)


def test_the_variance_of_groups_is_its_definition_written_out():
    rng = np.random.default_rng(4)
    label, group = rng.integers(0, 2, 60), rng.integers(0, 25, 60)
    score = np.round(rng.normal(label, 1.2), 1)
    positive, negative = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    wins = [[float(score[i] > score[j]) + 0.5 * (score[i] == score[j]) for j in negative] for i in positive]
    m, n, area = len(positive), len(negative), float(np.mean(wins))
    above, below = dict(zip(positive, np.mean(wins, 1))), dict(zip(negative, np.mean(wins, 0)))  # noqa: B905
    groups = sorted(set(group))
    of_positives = [sum(above[i] - area for i in positive if group[i] == g) for g in groups]
    of_negatives = [sum(below[j] - area for j in negative if group[j] == g) for g in groups]
    with_positive, with_negative = len(set(group[positive])), len(set(group[negative]))
    # Obuchowski 1997, the estimates S10, S01 and S11, and the variance of the area from them.
    s10 = with_positive / ((with_positive - 1) * m) * sum(v * v for v in of_positives)
    s01 = with_negative / ((with_negative - 1) * n) * sum(v * v for v in of_negatives)
    s11 = len(groups) / (len(groups) - 1) * sum(a * b for a, b in zip(of_positives, of_negatives, strict=True))
    wanted = s10 / m + s01 / n + 2 * s11 / (m * n)
    assert delong_covariance(label, score[None], group)[1] == pytest.approx(wanted)


def test_bags_of_patients_counted_as_independent_are_too_sure_and_patients_are_not():
    """No difference; patients of four bags share their label, and how each model sees them."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 4)
    label = group % 2
    alone, grouped = [], []
    for _ in range(600):
        shared = rng.normal(0, 1, (2, 60)).repeat(4, axis=1)
        scores = label + shared + rng.normal(0, 0.5, (2, 240))
        alone.append(delong_test(label, *scores).p < 0.05)
        grouped.append(delong_test(label, *scores, group=group).p < 0.05)
    assert np.mean(alone) > 0.2
    assert np.mean(grouped) == pytest.approx(0.05, abs=0.027)  # three standard errors


def test_a_class_in_one_group_has_no_variance():
    label, score = np.repeat([0, 1], 6), np.arange(12.0)
    found = delong_test(label, score, score[::-1], group=np.array([0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6]))
    assert math.isnan(found.p) and math.isnan(found.lower) and not found.has_no_spread
    with pytest.raises(ValueError, match="one for each bag"):
        delong_covariance(label, score[None], np.zeros(5))


def test_delong_without_a_difference_and_without_a_class():
    label = np.arange(20) % 2
    scores = np.linspace(0, 1, 20)
    same = delong_test(label, scores, 3 * scores - 1)
    assert (same.z, same.p, same.difference) == (0.0, 1.0, 0.0) and same.has_no_spread
    one_class = delong_test(np.ones(5, int), scores[:5], scores[:5])
    assert math.isnan(one_class.first) and math.isnan(one_class.p) and not one_class.has_no_spread
    with pytest.raises(ValueError, match="0 or 1"):
        delong_test(np.array([0, 1, -1]), scores[:3], scores[:3])
    with pytest.raises(ValueError, match="NaN"):
        delong_test(label, scores, np.where(label, np.nan, scores))
    with pytest.raises(ValueError, match="expected"):
        delong_covariance(label, scores[None, :5])


def test_a_difference_without_variance_is_no_certain_one():
    label, perfect, constant = np.array([0, 0, 0, 1, 1, 1]), np.arange(6.0), np.zeros(6)
    apart = delong_test(label, perfect, constant)
    assert apart.difference == 0.5 and apart.has_no_spread
    assert all(map(math.isnan, (apart.lower, apart.upper, apart.z, apart.p)))
    alike = delong_test(label, perfect, np.array([2, 1, 0, 3, 5, 4]))  # both perfect
    assert (alike.difference, alike.p) == (0.0, 1.0) and math.isnan(alike.lower) and math.isnan(alike.upper)


def test_the_interval_of_a_difference_ends_at_1():
    label = np.array([0, 0, 0, 1, 1, 1])
    far = delong_test(label, np.array([0, 1, 4, 2, 5, 6]), np.array([6, 4, 2, 0, 1, 3]))
    assert far.difference == pytest.approx(7 / 9) and far.upper == 1.0
    other = delong_test(label, np.array([6, 4, 2, 0, 1, 3]), np.array([0, 1, 4, 2, 5, 6]))
    assert (other.lower, other.upper) == (-1.0, -far.lower) and other.p == far.p


def test_the_interval_of_one_auc_is_delongs_normal_one():
    rng = np.random.default_rng(8)
    label = np.repeat([0, 1], [30, 20])
    score = label + rng.normal(0, 1, 50)
    value, lower, upper = delong_interval(label, score)
    # The variance by its definition: placements of each positive among the negatives, and the other way round.
    pairs = (score[label == 1][:, None] > score[label == 0]).astype(float)
    variance = pairs.mean(axis=1).var(ddof=1) / 20 + pairs.mean(axis=0).var(ddof=1) / 30
    assert value == pytest.approx(roc_auc_score(label, score))
    assert (lower, upper) == pytest.approx((value - 1.959964 * variance**0.5, value + 1.959964 * variance**0.5))


def test_an_interval_ends_at_1_and_says_nothing_where_nothing_is_wrong():
    label = np.repeat([0, 1], 6)
    score = np.arange(12.0)
    assert delong_interval(label, score)[0] == 1 and np.isnan(delong_interval(label, score)[1:]).all()
    score[[5, 6]] = score[[6, 5]]
    value, lower, upper = delong_interval(label, score)
    assert value < 1 and lower < value and upper == 1
    assert np.isnan(delong_interval(label[:7], score[:7])[1:]).all()  # one positive
