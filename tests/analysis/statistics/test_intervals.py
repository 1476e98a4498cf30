"""Intervals against independent calculations, their special cases, and their coverage by simulation."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from analysis.statistics.intervals import mean_interval, paired_difference

AUCS = [0.91, 0.935, 0.87, 0.96, 0.942]


def test_below_twenty_it_is_the_t_interval_of_the_logit_of_the_mean():
    found = mean_interval(AUCS)
    m = np.mean(AUCS)
    low, high = stats.t.interval(0.95, len(AUCS) - 1, loc=logit(m), scale=stats.sem(AUCS) / (m * (1 - m)))
    assert found.kind == "t on the logit"
    assert (found.mean, found.count) == (pytest.approx(m), 5)
    assert (found.lower, found.upper) == (pytest.approx(expit(low)), pytest.approx(expit(high)))
    assert found.upper - found.mean < found.mean - found.lower  # squeezed towards 1


def test_hand_calculated_t_interval():
    # 1, 2, 3: mean 2, standard error 1/sqrt(3), t quantile for 2 degrees of freedom 4.302653 (any t table)
    found = mean_interval([1.0, 2.0, 3.0], unit_interval=False)
    assert found.kind == "t"
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert (found.lower + found.upper) / 2 == pytest.approx(2.0)


def test_other_confidence_is_narrower():
    assert mean_interval(AUCS, confidence=0.8).half_width < mean_interval(AUCS).half_width


def test_many_replicates_have_the_same_kind_of_interval():
    x = expit(np.random.default_rng(0).normal(2, 0.7, 40))
    m, se = x.mean(), x.std(ddof=1) / math.sqrt(40)
    half = stats.t.ppf(0.975, 39) * se / (m * (1 - m))
    found = mean_interval(x)
    assert found.kind == mean_interval(x[:19]).kind == "t on the logit"
    assert (found.lower, found.upper) == pytest.approx((expit(logit(m) - half), expit(logit(m) + half)))
    assert mean_interval(x, unit_interval=False).kind == "t"


def test_nan_is_left_out_and_not_counted():
    assert mean_interval([*AUCS, math.nan]) == mean_interval(AUCS)
    nothing = mean_interval([math.nan, math.nan])
    assert nothing.count == 0 and math.isnan(nothing.mean) and not nothing.has_bounds


def test_one_value_has_no_interval():
    found = mean_interval([0.9])
    assert (found.mean, found.count, found.kind) == (0.9, 1, "none")
    assert not found.has_bounds and math.isnan(found.half_width)


@pytest.mark.parametrize("value", [0.1, 0.93, 1.0, 0.0])
@pytest.mark.parametrize("count", [5, 25])
def test_equal_values_have_no_interval_and_give_no_warning(value, count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mean_interval([value] * count)
    assert found.kind == "no spread"
    assert found.mean == pytest.approx(value) and not found.has_bounds and found.is_void
    same = paired_difference({0: 0.9, 1: 0.8}, {0: 0.8, 1: 0.7}, unit_interval=True)
    assert same.kind == "no spread" and same.mean == pytest.approx(0.1) and not same.has_bounds


def test_an_interval_over_half_of_the_range_is_not_given():
    folds = [1.0, 0.75, 1.0, 0.5, 1.0]  # of two bags of each class
    wide = mean_interval(folds, test_train_ratio=1 / 3)
    assert (wide.kind, wide.mean, wide.count, wide.has_bounds) == ("not estimable", 0.85, 5, False)
    assert mean_interval([0.9, 0.8, 1.0, 0.85, 0.95], test_train_ratio=1 / 3).has_bounds
    loss = mean_interval([0.1, 3.0, 9.0], unit_interval=False)  # without an end there is no half of a range
    assert loss.has_bounds and loss.half_width > 5


@pytest.mark.parametrize(("half", "kind"), [(0.99, "t"), (1.01, "not estimable")])
def test_a_difference_may_cover_half_of_minus_one_to_one(half, kind):
    step = half / 2 / stats.t.ppf(0.975, 1)  # of two values d ± s the half-width is t · s
    found = paired_difference({0: 0.1 + step, 1: 0.1 - step}, {0: 0.0, 1: 0.0}, unit_interval=True)
    assert found.kind == kind and found.mean == pytest.approx(0.1)


def test_folds_of_few_bags_mislead_by_equal_values_alone():
    """Of two bags of each class in a fold, at an AUC of 0.9: a fifth of all studies has five equal folds."""
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(stats.norm.ppf(0.9) * 2**0.5, 1, (600, 5, 2, 1)), rng.normal(0, 1, (600, 5, 1, 2))
    areas = (positive > negative).mean((-1, -2))
    found = [mean_interval(one, test_train_ratio=1 / 3) for one in areas]
    equal = np.mean([one.kind == "no spread" for one in found])
    assert equal == pytest.approx(0.21, abs=0.05)
    assert np.mean([one.kind == "not estimable" for one in found]) > 0.7  # true, but as wide as chance to perfect


LOSSES = [0.05, 0.9, 0.12, 0.2, 0.07]


@pytest.mark.parametrize("ratio", [None, 1 / 4])
def test_a_loss_has_the_t_interval_of_the_log_of_its_mean(ratio):
    found = mean_interval(LOSSES, unit_interval=False, without_end=True, test_train_ratio=ratio)
    m = np.mean(LOSSES)
    se = np.std(LOSSES, ddof=1) * math.sqrt(1 / 5 + (ratio or 0))
    low, high = np.log(m) + np.array([-1, 1]) * stats.t.ppf(0.975, 4) * se / m
    assert found.kind == ("t on the log" if ratio is None else "corrected t on the log")
    assert (found.mean, found.lower, found.upper) == pytest.approx((m, np.exp(low), np.exp(high)))
    assert mean_interval(LOSSES, unit_interval=False, test_train_ratio=ratio).lower < 0 < found.lower


def test_losses_at_the_ends_keep_their_intervals():
    kinds = {"unit_interval": False, "without_end": True}
    assert mean_interval([0.0, 0.0, 0.3], **kinds).lower > 0
    assert math.isfinite(mean_interval([0.0, 0.3], confidence=1 - 1e-9, **kinds).upper)
    assert mean_interval([0.0] * 3, **kinds).kind == "no spread"
    assert not mean_interval([0.1, math.inf], **kinds).has_bounds
    below = mean_interval([-0.1, 0.2, 0.4], **kinds)  # is no such metric
    assert below == mean_interval([-0.1, 0.2, 0.4], unit_interval=False)


@pytest.mark.parametrize("values", [[1.0, 0.98, 0.97], [0.0, 0.2, 0.1, 0.3], [1.0, 1.0, 1.0, 0.999]])
def test_values_at_the_ends_keep_a_finite_interval_inside_the_unit_interval(values):
    found = mean_interval(values)
    assert found.kind == "t on the logit"
    assert 0 < found.lower < found.mean < found.upper < 1
    x, m = np.array(values), np.mean(values)  # delta method, written out
    half = stats.t.ppf(0.975, len(x) - 1) * stats.sem(x) / (m * (1 - m))
    assert (found.lower, found.upper) == (
        pytest.approx(expit(logit(m) - half)),
        pytest.approx(expit(logit(m) + half)),
    )


def test_a_collapsed_replicate_does_not_leave_the_mean_outside_its_interval():
    values = [0.5, *[0.97 + 0.0005 * i for i in range(18)]]
    found = mean_interval(values)
    assert found.lower < found.mean < found.upper


def test_a_value_that_is_no_auc_is_refused():
    with pytest.raises(ValueError, match=r"1\.2"):
        mean_interval([0.9, 1.2])


def test_paired_difference_is_scipys_paired_t_test():
    a = dict(enumerate(AUCS))
    b = {0: 0.90, 1: 0.90, 2: 0.88, 3: 0.93, 4: 0.925}
    found = paired_difference(a, b)
    test = stats.ttest_rel(list(a.values()), list(b.values()))
    wanted = test.confidence_interval(0.95)
    assert (found.lower, found.upper) == (pytest.approx(wanted.low), pytest.approx(wanted.high))
    swapped = paired_difference(b, a)
    assert (swapped.mean, swapped.lower) == (pytest.approx(-found.mean), pytest.approx(-found.upper))


def test_pairs_are_matched_by_replicate_not_by_place():
    first = {3: 0.9, 1: 0.8, 2: math.nan, 7: 0.99}
    second = {1: 0.7, 2: 0.6, 3: 0.85, 8: 0.1}
    found = paired_difference(first, second)
    assert found.count == 2
    assert found.mean == pytest.approx((0.1 + 0.05) / 2)
    assert paired_difference({0: 0.5}, {1: 0.5}).count == 0
    assert not paired_difference({0: 0.5}, {0: 0.4}).has_bounds


def _coverage(count: int, spread: float, truth: float, draws: int = 3000) -> float:
    rng = np.random.default_rng(count)
    samples = expit(rng.normal(2.5, spread, (draws, count)))
    intervals = [mean_interval(x) for x in samples]
    return float(np.mean([i.lower < truth < i.upper for i in intervals]))


@pytest.mark.parametrize(("count", "spread", "coverage"), [(5, 0.4, 0.943), (10, 0.4, 0.94), (10, 1.0, 0.913)])
def test_coverage_of_the_expected_auc_is_what_the_module_says(count, spread, coverage):
    expected = expit(np.random.default_rng(1).normal(2.5, spread, 400_000)).mean()
    # Three standard errors of a coverage of 0.94 over 3000 draws are 0.013.
    assert _coverage(count, spread, expected) == pytest.approx(coverage, abs=0.016)


def test_coverage_of_the_bootstrap_at_twenty_replicates_is_what_the_module_says():
    expected = expit(np.random.default_rng(1).normal(2.5, 0.4, 400_000)).mean()
    # Three standard errors over 250 draws.
    assert _coverage(20, 0.4, expected, draws=250) == pytest.approx(0.911, abs=0.054)


@pytest.mark.parametrize("count", [5, 10, 20])
def test_coverage_of_a_paired_difference(count):
    rng = np.random.default_rng(count)
    hit = 0
    for _ in range(2000):
        shared = rng.normal(0, 3.0, count)  # common to both, so the pairs must remove it
        first, second = shared + rng.normal(0.3, 0.5, count), shared + rng.normal(0, 0.5, count)
        found = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
        hit += found.lower < 0.3 < found.upper
    assert hit / 2000 == pytest.approx(0.95, abs=0.015)
