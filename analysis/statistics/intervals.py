"""Intervals for a mean over replicates, and for a paired difference of two means.

What they say: how much the mean would move if the study were repeated with new bags and new initialisations.
They assume replicates that are independent of each other. They say nothing about other data sets, and folds
of one data set are *not* independent: there these intervals are too narrow. Which replicates are folds, and which were
tested on the same bags, is for `cells.partitions`.

A metric in [0, 1] gets a t interval on the logit scale, transformed back: that of logit(mean), its standard error by
the delta method, se / (mean (1 − mean)). One in [0, ∞), such as a loss or a time, gets a t interval on the log scale in
the same way, with se / mean. Any other metric gets the t interval.

Folds and repeated splits of one data set share training data. Given the ratio of test to training bags, the variance
of their mean is taken as s² (1/J + ratio) in place of s²/J (Nadeau and Bengio, 2003), at any count: "corrected t".
Even so it is an interval about this data set.

Why not the t interval of the mean logit: it is one for the typical replicate, sigmoid(E logit), while the table
shows the mean (coverage at 10 replicates with the wider spread below: 0.799). Why not a bootstrap: from 20 replicates
on, where it was used before, BCa (Efron, 1987) covers less.

Coverage by nominal 95 % intervals, by simulation (`benchmarks/interval_coverage.py`: logit-normal AUC about 2.5 with
the standard deviation in brackets; 4,000 draws, standard error 0.004; BCa 1,500 draws, 0.007):

                            5 replicates                10 replicates               20 replicates
    mean, t on its logit    0.944 (0.4)  0.921 (1.0)    0.942 (0.4)  0.918 (1.0)    0.946 (0.4)  0.934 (1.0)
    mean, BCa bootstrap                                                             0.923 (0.4)  0.909 (1.0)
    paired difference, t    0.952 (0.4)  0.921 (1.0)    0.953 (0.4)  0.935 (1.0)    0.951 (0.4)  0.939 (1.0)

At 50 replicates t on the logit covers 0.945 and 0.941, BCa 0.943 and 0.943. So intervals are a little too narrow where
AUCs are skewed. Differences with corrected variance, 10 folds correlated as Nadeau and Bengio assume: 0.953 for one
repeat (plain t: 0.852), 0.955 for five (plain t: 0.569).

Where folds test few bags, an AUC takes few values: five of two bags of each class. Simulated at an AUC of 0.9 with m
bags of each class in a fold (the same script, 1,500 draws): the share of studies in which all folds are equal, and of
the others how often the corrected interval holds the truth, its median width, and the share wider than 0.5:

                    5 folds                                10 folds
                    equal   holds   width   > 0.5          equal   holds   width   > 0.5
    m = 1           0.59    1.000   0.99    1.00           0.32    1.000   0.83    1.00
    m = 2           0.19    0.999   0.86    1.00           0.04    0.998   0.46    0.43
    m = 3           0.06    0.997   0.70    0.83           0.00    0.997   0.34    0.08
    m = 5           0.00    0.997   0.51    0.51           0.00    0.995   0.24    0.00
    m = 10          0.00    0.987   0.32    0.11           0.00    0.996   0.16    0.00

So a wide interval is true and says nothing. The interval of equal folds, which has no width, is never true: at an AUC
of 0.97 and m = 2 six studies of ten would show 1.000 [1.000, 1.000]. Neither is given (`without_void_bounds`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

WIDEST = 0.5
"""Part of a metric's range that an interval may cover: of an AUC that is the way from chance to perfect. A wider one
says nothing that was not known before."""

MOST_OF_LOG = 100.0
"""Half-widths on the log scale beyond which nothing is told, and numbers run over."""

Kind = Literal[
    "none",
    "t",
    "t on the logit",
    "t on the log",
    "corrected t",
    "corrected t on the logit",
    "corrected t on the log",
    "no spread",
    "not estimable",
    "as published",
    "normal",
    "image bootstrap",
    "seldom defined",
]


@dataclass(frozen=True)
class Interval:
    """A mean of `count` values with its interval; NaN where there is none."""

    mean: float
    lower: float
    upper: float
    count: int
    kind: Kind

    @property
    def half_width(self) -> float:
        """Half the distance of the bounds; NaN without them."""
        return (self.upper - self.lower) / 2

    @property
    def has_bounds(self) -> bool:
        """Whether both bounds are finite."""
        return math.isfinite(self.lower) and math.isfinite(self.upper)

    @property
    def is_void(self) -> bool:
        """Whether there are several values, and yet no interval that would say anything (`without_void_bounds`)."""
        return self.kind in ("no spread", "not estimable", "seldom defined")


def without_void_bounds(found: Interval, length: float | None) -> Interval:
    """The interval; without its bounds where these say nothing, or what is not so.

    length: of the range of what the interval is of: 1 for a metric in [0, 1], 2 for a difference of such; None where it
        has no end
    No width: kind "no spread". Equal values do not tell how much others would differ, and the mean is hardly the truth
    to all digits. Wider than `WIDEST` of the range: kind "not estimable".
    """
    if not found.has_bounds:
        return found
    width = found.upper - found.lower
    if width <= 1e-12 * max(1.0, abs(found.mean)):
        return replace(found, lower=math.nan, upper=math.nan, kind="no spread")
    if length is not None and width > WIDEST * length:
        return replace(found, lower=math.nan, upper=math.nan, kind="not estimable")
    return found


def mean_interval(
    values: Iterable[float],
    *,
    unit_interval: bool = True,
    without_end: bool = False,
    confidence: float = 0.95,
    test_train_ratio: float | None = None,
) -> Interval:
    """The arithmetic mean of the values with an interval of the given confidence.

    values:        one per replicate; NaN (a test part with one class only) is left out and not counted
    unit_interval: the metric lies in [0, 1]
    without_end:   it lies in [0, ∞); with a value below 0 it does not, and has the t interval. Not with unit_interval
    test_train_ratio: of folds of one data set, test bags over training bags; None for independent replicates

    Special cases:
      no value:     mean and bounds NaN.
      one value, or an infinite one (a loss that ran away): the mean, no bounds (kind "none").
      zero spread, or an interval wider than `WIDEST` of the range: the mean, no bounds (`without_void_bounds`).
    ValueError if unit_interval and a value lies outside [0, 1].
    """
    x = np.asarray(list(values), dtype=np.float64)
    x = x[~np.isnan(x)]
    count = len(x)
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0, "none")
    if unit_interval and (x.min() < 0 or x.max() > 1):
        raise ValueError(f"a metric in [0, 1] has the value {x[(x < 0) | (x > 1)][0]}")
    mean = float(x.mean())
    if count == 1 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan, count, "none")
    if np.ptp(x) <= 1e-12 * max(1.0, abs(mean)):  # equal but for rounding
        return Interval(mean, math.nan, math.nan, count, "no spread")
    folds = test_train_ratio is not None
    half = _t_half_width(x, confidence, test_train_ratio)
    if without_end and x.min() >= 0:
        factor = math.exp(min(half / mean, MOST_OF_LOG))
        return Interval(
            mean, mean / factor, mean * factor, count, "corrected t on the log" if folds else "t on the log"
        )
    if not unit_interval:
        return Interval(mean, mean - half, mean + half, count, "corrected t" if folds else "t")
    half /= mean * (1 - mean)
    centre = math.log(mean / (1 - mean))
    kind: Kind = "corrected t on the logit" if folds else "t on the logit"
    return without_void_bounds(Interval(mean, _sigmoid(centre - half), _sigmoid(centre + half), count, kind), 1.0)


def paired_difference(
    first: Mapping[int, float],
    second: Mapping[int, float],
    *,
    confidence: float = 0.95,
    test_train_ratio: float | None = None,
    units: Mapping[int, Hashable] | None = None,
    unit_interval: bool = False,
) -> Interval:
    """Mean of first − second over the replicates that both have, with a t interval on the differences.

    first, second: value of the metric by replicate; a replicate that one lacks, or where one is NaN, is left
    out. No bounds below two pairs, and none that say nothing (`without_void_bounds`).
    units: as of `paired_values`
    unit_interval: the metric lies in [0, 1], and its differences in [−1, 1]
    """
    found = mean_difference(paired_values(first, second, units), confidence, test_train_ratio)
    return without_void_bounds(found, 2.0 if unit_interval else None)


def paired_values(
    first: Mapping[int, float], second: Mapping[int, float], units: Mapping[int, Hashable] | None = None
) -> np.ndarray:
    """first − second, (pairs,), over the replicates that both have, in ascending order.

    units: replicates of one unit (runs of one fold that were tested on the same bags) count once, by their mean.
    """
    both = sorted(first.keys() & second.keys())
    return unit_values({r: first[r] - second[r] for r in both}, units)


def unit_values(values: Mapping[int, float], units: Mapping[int, Hashable] | None = None) -> np.ndarray:
    """The values by replicate, (units,): those of one unit averaged (NaN left out), in the order of first appearance;
    a replicate that `units` lacks is a unit of its own."""
    groups: dict[Hashable, list[float]] = {}
    for replicate, value in values.items():
        key = ("unit", units[replicate]) if units and replicate in units else ("replicate", replicate)
        groups.setdefault(key, []).append(value)
    known = ([v for v in group if not math.isnan(v)] for group in groups.values())
    return np.array([np.mean(group) if group else math.nan for group in known], dtype=np.float64)


def unit_count(replicates: Iterable[int], units: Mapping[int, Hashable] | None = None) -> int:
    """How many units the replicates make."""
    return len(unit_values(dict.fromkeys(replicates, 0.0), units))


def mean_difference(
    differences: np.ndarray, confidence: float = 0.95, test_train_ratio: float | None = None
) -> Interval:
    """Mean and t interval (for folds: corrected) of differences, shape (replicates,); NaN is left out. Equal ones have
    bounds that equal their mean."""
    d = differences[~np.isnan(differences)]
    if len(d) == 0:
        return Interval(math.nan, math.nan, math.nan, 0, "none")
    mean = float(d.mean())
    if len(d) == 1 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan, len(d), "none")
    if np.ptp(d) <= 1e-12:
        return Interval(mean, mean, mean, len(d), "no spread")
    half = _t_half_width(d, confidence, test_train_ratio)
    return Interval(mean, mean - half, mean + half, len(d), "t" if test_train_ratio is None else "corrected t")


def _t_half_width(x: np.ndarray, confidence: float, test_train_ratio: float | None = None) -> float:
    from scipy.special import stdtrit  # a third of the import time of scipy.stats

    quantile = stdtrit(len(x) - 1, 0.5 + confidence / 2)
    return float(quantile * x.std(ddof=1) * math.sqrt(1 / len(x) + (test_train_ratio or 0.0)))


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
