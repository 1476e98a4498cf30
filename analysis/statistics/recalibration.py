"""Calibration slope and intercept by logistic recalibration (Cox, Biometrika 1958; Van Calster et al., J. Clin.
Epidemiol. 2016): the a and b that make σ(a + b · logit) of the labels most likely.

Of scores that are calibrated the intercept is 0 and the slope 1. A slope below 1 means scores that are too extreme, one
above 1 scores that are too timid. The intercept is that of both fitted together: only where the slope is 1 does an
intercept above 0 mean that positives are more frequent than the scores say.
"""

from __future__ import annotations

import math

import numpy as np

from d2l_study.learning.metrics import probability

STEPS = 100
"""Of Newton's method at most; it needs about six."""
TOLERANCE = 1e-9


def recalibration(label: np.ndarray, logit: np.ndarray, weight: np.ndarray | None = None) -> tuple[float, float]:
    """(intercept, slope), NaN both where they have no finite estimate (`without_recalibration`).

    label: (n,) of 0 and 1; logit: (n,), finite; weight: (n,) how often each counts, by default once.
    """
    weight = np.ones(len(label)) if weight is None else np.asarray(weight, np.float64)
    there = weight > 0
    y, w, x = np.asarray(label, np.float64)[there], weight[there], np.asarray(logit, np.float64)[there]
    if without_recalibration(y, x):
        return math.nan, math.nan
    total = float(w.sum())
    middle = float((w * x).sum()) / total
    spread = math.sqrt(float((w * (x - middle) ** 2).sum()) / total)
    z = (x - middle) / spread
    share = float((w * y).sum()) / total
    a, b = math.log(share / (1 - share)), 0.0
    loss = _loss(y, z, w, a, b)
    for _ in range(STEPS):
        p = probability(a + b * z)
        gap, certain = w * (y - p), w * p * (1 - p)
        gradient = float(gap.sum()), float((gap * z).sum())
        h0, h1, h2 = float(certain.sum()), float((certain * z).sum()), float((certain * z * z).sum())
        determinant = h0 * h2 - h1 * h1
        if determinant <= 0:
            return math.nan, math.nan
        step = ((h2 * gradient[0] - h1 * gradient[1]) / determinant,
                (h0 * gradient[1] - h1 * gradient[0]) / determinant)  # fmt: skip
        size = 1.0
        while (found := _loss(y, z, w, a + size * step[0], b + size * step[1])) > loss and size > 1e-6:
            size /= 2
        a, b, loss = a + size * step[0], b + size * step[1], found
        if max(abs(step[0]), abs(step[1])) < TOLERANCE * (1 + abs(a) + abs(b)):
            return a - b * middle / spread, b / spread
    return math.nan, math.nan


def without_recalibration(label: np.ndarray, logit: np.ndarray) -> str:
    """Why labels and logits have no finite slope, in words; empty if they have one.

    The likelihood has a maximum only where the logits of the classes overlap: else it grows with the slope for ever.
    """
    positive, negative = logit[label == 1], logit[label == 0]
    if not len(positive) or not len(negative):
        return "one class only"
    if logit.min() == logit.max():
        return "all scores are the same"
    if positive.min() >= negative.max() or positive.max() <= negative.min():
        return "the scores separate the classes, so the slope has no finite estimate"
    return ""


def _loss(y: np.ndarray, z: np.ndarray, w: np.ndarray, a: float, b: float) -> float:
    linear = a + b * z
    return float((w * np.logaddexp(0.0, np.where(y == 1, -linear, linear))).sum())
