"""Making scores probabilities, without instance labels.

Bags: temperature scaling (Guo et al., ICML 2017, "On calibration of modern neural networks"). Instances: a bias. A
teacher says 0.2 to 0.7 of an average instance where one in ten is positive, which no temperature corrects.
"""

from __future__ import annotations

import math

import numpy as np

from d2l_study.data.pool import Bags
from d2l_study.learning.metrics import probability

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
"""Bounds of a temperature: validation bags that are told apart without error would ask for 0."""


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The T in [0.05, 20] with the least negative log likelihood of sigmoid(logits / T).

    The likelihood is log-concave in 1/T, so its slope there changes sign once and bisection finds it.
    """
    sign = 2.0 * labels - 1

    def slope(inverse: float) -> float:
        """Derivative of the mean negative log likelihood by 1/T."""
        return float(np.mean(-sign * logits * probability(-sign * logits * inverse)))

    low, high = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
    if slope(low) >= 0:
        return HIGHEST_TEMPERATURE
    if slope(high) <= 0:
        return LOWEST_TEMPERATURE
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(1 / (low * high) ** 0.5)


def fit_instance_bias(instance_logits: np.ndarray, bags: Bags) -> float:
    """The b for which σ(s + b) of each bag's highest instance logit s is the most likely to give the bags' labels.

    instance_logits: (instances,) in the order of `bags.instance`. Where b is right, a bag's most positive instance is
    positive as often as the bag is; the mean of σ(s + b) over the bags is their share of positive ones, which bisection
    finds. NaN if there are none, they are of one class, or a logit is not finite. Reads no instance label.
    """
    scores = np.asarray(instance_logits, np.float64)
    if scores.shape != bags.instance.shape:
        raise ValueError(f"{scores.shape} logits for {bags.instance.shape} instances")
    share = float(np.mean(bags.label == 1)) if len(bags) else math.nan
    if not 0 < share < 1 or not np.isfinite(scores).all():
        return math.nan
    top = np.maximum.reduceat(scores, bags.offsets[:-1])
    odds = math.log(share / (1 - share))
    low, high = odds - top.max(), odds - top.min()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(top + middle).mean() < share else (low, middle)
    return float((low + high) / 2)
