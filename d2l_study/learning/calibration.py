"""Temperature scaling (Guo et al., ICML 2017, "On calibration of modern neural networks")."""

from __future__ import annotations

import numpy as np

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
