"""How many positive instances a positive bag holds, so that their mean share is what `witness_rate` says.

A positive bag holds at least one witness. The number in a bag of k is drawn from the binomial conditioned on at least
one, whose mean share m_k(p) = p / (1 − (1 − p)^k) is above the p of the binomial, the more so the smaller the bag; so
p is solved for. Bags of every size get the same mean share t, but for those so small that one witness is more already:
these hold one, a share of 1/k. Then t is solved for, so that the mean over the sizes drawn, Σ_k P(k) max(t, 1/k), is
the witness rate, exactly.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

TAIL = 9.0
"""Standard deviations of the bag size that are counted: beyond lie 2e-19."""

ONE_BY_ONE = 10_000
"""Sizes up to this are counted one by one; above, as many evenly spaced ones stand for their neighbours."""


@lru_cache(maxsize=64)
def size_distribution(mean: float, variance: float) -> tuple[np.ndarray, np.ndarray]:
    """The sizes max(1, round(N(mean, variance))) and the probability of each."""
    if variance == 0:
        return np.array([max(1, round(mean))]), np.ones(1)
    deviation = variance**0.5
    low, high = math.floor(max(1.0, mean - TAIL * deviation)), math.ceil(max(2.0, mean + TAIL * deviation))
    size = np.unique(np.concatenate([np.arange(low, min(high, ONE_BY_ONE) + 1),
                                     np.linspace(low, high, ONE_BY_ONE).round().astype(np.int64)]))  # fmt: skip
    edges = (size[:-1] + size[1:]) / 2
    scale = deviation * math.sqrt(2)
    below = np.array([0.5 * math.erfc((mean - edge) / scale) for edge in edges.tolist()])
    return size, np.diff(np.concatenate([[0.0], below, [1.0]]))


def smallest_rate(mean: float, variance: float) -> float:
    """The mean share of witnesses where every positive bag holds exactly one: no witness rate lies below."""
    size, chance = size_distribution(mean, variance)
    return float(chance @ (1 / size))


@lru_cache(maxsize=64)
def share_of_bags(mean: float, variance: float, rate: float) -> float:
    """The t with Σ_k P(k) max(t, 1/k) = rate, in [0, 1]; 0 if the rate is the smallest possible one or below."""
    size, chance = size_distribution(mean, variance)
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float(chance @ np.maximum(middle, 1 / size)) < rate else (low, middle)
    return high


@lru_cache(maxsize=100_000)
def binomial_rate(size: int, share: float) -> float:
    """The p for which Binomial(size, p), given at least one, has the mean size · share; 0, for exactly one, where
    share ≤ 1/size."""
    if share >= 1.0:
        return 1.0
    if share * size <= 1.0:
        return 0.0
    low, high = 0.0, share  # the share given at least one is above p
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_share(size, middle) < share else (low, middle)
    return high


def mean_share(size: int, p: float) -> float:
    """The mean of Binomial(size, p) given at least one, over the size: p / (1 − (1 − p)^size); 1/size for p → 0."""
    if p >= 1.0:
        return 1.0
    at_least_one = -math.expm1(size * math.log1p(-p))
    return p / at_least_one if at_least_one > 0 else 1 / size


def at_least_one(rng: np.random.Generator, size: int, p: float) -> int:
    """A draw of Binomial(size, p) given that it is at least 1, by inverting its distribution function."""
    if p >= 1.0:
        return size
    if p <= 0.0:
        return 1
    position = int(np.searchsorted(_distribution(size, p), rng.random(), side="right"))
    return min(position, size - 1) + 1


@lru_cache(maxsize=256)  # bags have few sizes
def _distribution(size: int, p: float) -> np.ndarray:
    """(size,) of Binomial(size, p) given at least 1: the probability of at most 1, 2, … size."""
    count = np.arange(1, size + 1)
    steps = np.log(size - count + 1) - np.log(count) + np.log(p) - np.log1p(-p)
    log_mass = np.cumsum(steps)  # up to the constant of count = 0, which the conditioning cancels
    mass = np.exp(log_mass - log_mass.max())
    cumulative: np.ndarray = np.cumsum(mass) / mass.sum()
    return cumulative
