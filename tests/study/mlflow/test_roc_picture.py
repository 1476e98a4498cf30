"""The picture of ROC curves."""

import numpy as np

from d2l_study.learning.metrics import roc_curve
from d2l_study.study.mlflow.roc_picture import roc_picture


def test_the_roc_curve_equals_scikit_learns_with_ties():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    logits = np.round(rng.normal(labels, 1.0), 1)
    false, true, _ = metrics.roc_curve(labels, logits, drop_intermediate=False)
    ours = roc_curve(labels, logits)
    np.testing.assert_allclose(ours[0], false)
    np.testing.assert_allclose(ours[1], true)


def test_the_roc_picture_stands_a_replicate_without_a_curve():
    good = (np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.4, 0.3]))
    one_class = (np.array([1, 1]), np.array([0.1, 0.2]))
    broken = (np.array([0, 1]), np.array([np.nan, 0.2]))
    only_good = roc_picture({0: good}, "a title")
    assert only_good.startswith(b"\x89PNG")
    assert roc_picture({0: good, 1: one_class, 2: broken}, "a title") == only_good
    assert roc_picture({1: one_class}, "a title") != only_good
