"""Scores with their labels: what curves and calibration are computed from."""

from __future__ import annotations

import numpy as np

Scores = tuple[np.ndarray, np.ndarray]
"""labels (scores,) of 0 and 1, logits (scores,): what has no known label is left out."""


def has_both_classes(scores: Scores) -> bool:
    """Whether there are positives and negatives; False of no scores."""
    labels, _ = scores
    return bool(np.ptp(labels) > 0) if len(labels) else False
