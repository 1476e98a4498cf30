"""How far scores can be read as probabilities: temperature scaling, calibration error, Brier score, and the
sensitivity at a fixed specificity.

The temperature (Guo et al. 2017, "On calibration of modern neural networks") is fitted to the bag labels of the
validation part of the same run, as training saw them (label noise included); no test label and no instance label sets
anything. Instance scores are scaled by the temperature of their run's bags, since instances have no labels to fit one
to: a model's instance score is its answer to a bag of one (a student's bag score is made of instance scores).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.statistics.roc_curves import sensitivity_at
from analysis.statistics.scores import Scores, has_both_classes
from d2l_study.learning.calibration import fit_temperature
from d2l_study.learning.metrics import brier, probability

BINS = 10
SPECIFICITY = 0.9


@dataclass(frozen=True)
class Calibration:
    """Of one run. NaN where it is not defined."""

    temperature: float
    """NaN without validation labels of both classes."""
    ece: float
    ece_scaled: float
    brier: float
    brier_scaled: float
    sensitivity: float
    """At `SPECIFICITY`, the threshold read off the test scores themselves; scaling does not change it."""


def calibration_of(test: Scores, validation: Scores | None) -> Calibration:
    """test, validation: labels and logits; validation None or of one class leaves the scaled figures NaN."""
    labels, logits = test
    temperature = fit_temperature(*validation) if validation is not None and has_both_classes(validation) else np.nan
    scaled = logits / temperature
    undefined = np.isnan(temperature)
    return Calibration(
        float(temperature),
        calibration_error(labels, probability(logits)),
        np.nan if undefined else calibration_error(labels, probability(scaled)),
        brier(labels, logits),
        np.nan if undefined else brier(labels, scaled),
        sensitivity_at(labels, logits, SPECIFICITY) if has_both_classes(test) else np.nan,
    )


def reliability_bins(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean score and share of positives in each of `BINS` bins of equal width, each (BINS,); NaN where empty."""
    at = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    count = np.bincount(at, minlength=BINS).astype(float)
    with np.errstate(invalid="ignore"):
        score = np.bincount(at, probabilities, BINS) / count
        share = np.bincount(at, labels, BINS) / count
    return count, score, share


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error: |share of positives − mean score| over the bins, weighted by their counts. Of scores
    for the positive class, not of the more likely class."""
    count, score, share = reliability_bins(labels, probabilities)
    full = count > 0
    return float(np.sum(count[full] * np.abs(share[full] - score[full])) / count.sum())


def calibration_by_replicate(test: Mapping[int, Scores], validation: Mapping[int, Scores]) -> dict[int, Calibration]:
    """The calibration of each replicate that has test scores."""
    return {r: calibration_of(scores, validation.get(r)) for r, scores in test.items()}
