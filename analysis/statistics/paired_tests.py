"""Tests of paired differences: which one assumes what, and the smallest p-value that each can reach.

    t                the differences of replicates are independent and normal. At 5 pairs it is nearly blind to small
                     effects; a p-value far below 0.01 there leans wholly on the normal shape.
    Wilcoxon         independent differences from a symmetric distribution. Exact where it can be; with n pairs no
                     two-sided p lies below 2^(1 − n): 0.0625 at 5, which no correction can bring below 0.05. Of many
                     pairs, or tied ones, it is an approximation with a floor of its own, 0.0009 at 14 pairs.
    corrected t      (Nadeau and Bengio, Machine Learning 52, 2003) for folds and repeated splits of one data set,
                     whose differences share training data: the variance of their mean is taken as
                     s² (1/J + n_test / n_train) instead of s²/J. The correlation is a guess that was calibrated on
                     losses, and an AUC is no mean of losses; it still says nothing of another data set.

None of them says that two methods are equal: a large p-value is a lack of evidence. All take each method as it was
tuned; a method tuned with fewer trials is not made equal by a test. Replicates are new bags and new initialisations
from one data set: the population is that of bags, not of data sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIGNIFICANCE_LEVEL = 0.05
"""Of p-values after Holm's correction."""
LEAST_PAIRS = 5
"""With fewer pairs a p-value is shown without a verdict."""
EXACT_WITH_TIES = 13
"""With ties Wilcoxon's exact distribution is enumerated, 2^n signs, up to so many pairs."""
EXACT_WITHOUT_TIES = 50
"""Without ties it is counted up to so many pairs."""


@dataclass(frozen=True)
class TestResult:
    """A two-sided test of "no difference"."""

    __test__ = False  # for pytest, which would collect the name

    name: str
    statistic: float
    p: float
    smallest_p: float
    """The least p-value that the test can give at this count, whatever the data (of Wilcoxon's whatever the signs of
    the differences); 0 where it has no floor."""
    count: int


def paired_t(differences: np.ndarray) -> TestResult:
    """Student's t test of differences, shape (pairs,); NaN is left out. NaN below two pairs.

    Equal differences, without spread, have no t: p is 1 where they are 0, NaN otherwise.
    """
    return corrected_t(differences, 0.0)


def corrected_t(differences: np.ndarray, test_train_ratio: float) -> TestResult:
    """The corrected resampled t test: J − 1 degrees of freedom, variance s² (1/J + n_test / n_train).

    differences: (J,), one per fold and repeat; NaN is left out. test_train_ratio: bags of the test part over bags of
    the training part; for k folds 1 / (k − 1). With 0 it is Student's paired t test.
    """
    from scipy.special import stdtr

    if test_train_ratio < 0:
        raise ValueError(f"test_train_ratio must not be negative, found {test_train_ratio}")
    d = _kept(differences)
    name = "corrected t" if test_train_ratio else "t"
    if len(d) < 2 or not np.isfinite(d).all():  # an infinite loss has no spread that t could be measured in
        return TestResult(name, math.nan, math.nan, math.nan, len(d))
    if np.ptp(d) <= 1e-12:
        zero = abs(float(d.mean())) <= 1e-12
        return TestResult(name, 0.0 if zero else math.nan, 1.0 if zero else math.nan, 0.0, len(d))
    t = float(d.mean() / (d.std(ddof=1) * math.sqrt(1 / len(d) + test_train_ratio)))
    return TestResult(name, t, float(2 * stdtr(len(d) - 1, -abs(t))), 0.0, len(d))


def wilcoxon(differences: np.ndarray) -> TestResult:
    """Wilcoxon's signed-rank test of differences, shape (pairs,); NaN is left out, and so are zeros (Wilcoxon 1945).

    Exact without ties up to `EXACT_WITHOUT_TIES` pairs and with ties up to `EXACT_WITH_TIES`; otherwise the normal
    approximation, whose smallest p is far above that of the exact test. p is 1 where all differences are 0. `statistic`
    is the smaller sum of ranks.
    """
    from scipy import stats

    d = _kept(differences)
    # Differences that are equal but for rounding are ties.
    d = np.round(d, 12)
    moved = d[d != 0]
    n = len(moved)
    if len(d) == 0:
        return TestResult("Wilcoxon", math.nan, math.nan, math.nan, 0)
    if n == 0:
        return TestResult("Wilcoxon", 0.0, 1.0, 1.0, len(d))
    tied = len(np.unique(np.abs(moved))) < n
    exact = n <= (EXACT_WITH_TIES if tied else EXACT_WITHOUT_TIES)
    method: object = "exact" if exact else "asymptotic"
    if exact and tied:
        method = stats.PermutationMethod(n_resamples=math.inf)
    found = stats.wilcoxon(moved, method=method)
    smallest = smallest_wilcoxon_p(n) if exact else float(stats.wilcoxon(np.abs(moved), method=method).pvalue)
    return TestResult("Wilcoxon", float(found.statistic), min(1.0, float(found.pvalue)), smallest, len(d))


def smallest_wilcoxon_p(pairs: int) -> float:
    """2^(1 − n) of the exact test: all differences on one side. 0.0625 at 5 pairs, 0.00195 at 10; 1 at none or one."""
    return min(1.0, 2.0 ** (1 - pairs)) if pairs else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method (Scand. J. Statist. 1979), in the given order.

    They hold the chance of any false rejection in the table at the level, whatever their dependence. NaN stays NaN
    and is not counted. (The same as statsmodels' `multipletests(method="holm")`, which would be a new dependency
    for three lines.)
    """
    p = np.asarray(p_values, np.float64)
    corrected = np.full(len(p), math.nan)
    (place,) = np.nonzero(~np.isnan(p))
    order = place[np.argsort(p[place], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return corrected.tolist()


def _kept(differences: np.ndarray) -> np.ndarray:
    d = np.asarray(differences, np.float64)
    return d[~np.isnan(d)]
