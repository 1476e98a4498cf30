"""Scores with labels, invented or read from stored predictions, for tests of curves and calibration."""

import numpy as np

import analysis


def some_scores(seed=0, count=300):
    """labels and logits of so many instances; rounded, so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    return labels, np.round(rng.normal(1.5 * labels - 0.5, 1.2), 1)


def stored_scores(rows, method, num_bags, split="test", level="bag"):
    """label and logit of each replicate, read as a notebook would."""
    root = next(iter(rows.attrs["folders"].values()))
    found = analysis.load_predictions("made", root, method=method, num_bags=num_bags, split=split, level=level)
    return [(g["label"].to_numpy(int), g["logit"].to_numpy(float)) for _, g in found.groupby("replicate")]
