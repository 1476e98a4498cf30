"""Metrics from logits and labels, in numpy; what is not defined is NaN, never 0 or 0.5."""

from __future__ import annotations

import math

import numpy as np


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half
    (Mann–Whitney). label: (n,) of 0 and 1; score: (n,) any real numbers. NaN if one class is missing."""
    label, score = _checked(label, score)
    positives = int(label.sum())
    negatives = len(label) - positives
    if positives == 0 or negatives == 0:
        return math.nan
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # the mean rank of ties
    return float((rank[label == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(label: np.ndarray, score: np.ndarray) -> float:
    """Σ (R_i − R_{i−1}) P_i over thresholds in decreasing order, without interpolation. NaN without positives."""
    label, score = _checked(label, score)
    if label.sum() == 0:
        return math.nan
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(label[order])
    last_of_ties = np.append(np.diff(score[order]) != 0, True)
    precision = (hits / np.arange(1, len(label) + 1))[last_of_ties]
    recall = (hits / label.sum())[last_of_ties]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def log_loss(label: np.ndarray, logit: np.ndarray) -> float:
    """Mean negative log likelihood in nats, from logits. NaN of nothing."""
    label, logit = _checked(label, logit)
    if not len(label):
        return math.nan
    return float(np.mean(np.logaddexp(0.0, np.where(label == 1, -logit, logit))))


def brier(label: np.ndarray, logit: np.ndarray) -> float:
    """Mean squared difference of probability and label, between 0 and 1. NaN of nothing."""
    label, logit = _checked(label, logit)
    if not len(label):
        return math.nan
    return float(np.mean((probability(logit) - label) ** 2))


def probability(logit: np.ndarray) -> np.ndarray:
    """σ(logit), without overflow."""
    logit = np.asarray(logit, np.float64)
    return np.exp(-np.logaddexp(0.0, -logit))


def at_threshold(label: np.ndarray, logit: np.ndarray, threshold: float = 0.0) -> dict[str, float]:
    """accuracy, precision, recall and f1 of calling positive what has a logit above the threshold (0: p > 0.5).

    Precision is NaN if nothing is called positive, recall if nothing is positive, f1 if both counts are 0.
    """
    label, logit = _checked(label, logit)
    called = logit > threshold
    hits = float(np.sum(called & (label == 1)))
    wrong, missed = float(np.sum(called)) - hits, float(np.sum(label == 1)) - hits

    def ratio(a: float, b: float) -> float:
        return a / b if b > 0 else math.nan

    return {
        "accuracy": float(np.mean(called == (label == 1))) if len(label) else math.nan,
        "precision": ratio(hits, hits + wrong),
        "recall": ratio(hits, hits + missed),
        "f1": ratio(2 * hits, 2 * hits + wrong + missed),
    }


def _checked(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    label, score = np.asarray(label), np.asarray(score, np.float64)
    if label.shape != score.shape or label.ndim != 1:
        raise ValueError(f"labels {label.shape} and scores {score.shape} must be vectors of one length")
    if not np.isin(label, (0, 1)).all():
        raise ValueError("labels must be 0 or 1; leave unknown ones out")
    if np.isnan(score).any():
        raise ValueError("scores must not be NaN")
    return label.astype(np.int64), score


def roc_curve(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates, both ascending from 0 to 1, one point per distinct logit (ties are one step).

    labels: (n,) of 0 and 1, both present; logits: (n,), finite.
    """
    order = np.argsort(-logits, kind="stable")
    hit = labels[order] == 1
    last = np.append(np.diff(logits[order]) != 0, True)
    true, false = np.cumsum(hit)[last], np.cumsum(~hit)[last]
    return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])
