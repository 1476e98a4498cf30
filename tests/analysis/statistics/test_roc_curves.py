"""ROC and precision-recall curves on a grid against scikit-learn."""

import numpy as np
import pytest
from make_scores import some_scores
from sklearn import metrics

from analysis.statistics.roc_curves import GRID, RECALL_GRID, mean_band, precision_on_grid, roc_on_grid, sensitivity_at


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_curves_on_the_grid_are_those_of_scikit_learn(seed):
    labels, logits = some_scores(seed)
    false, true, _ = metrics.roc_curve(labels, logits, drop_intermediate=False)
    ours = roc_on_grid(labels, logits)
    assert ours[1:] == pytest.approx(np.interp(GRID, false, true)[1:])
    assert np.trapezoid(ours, GRID) == pytest.approx(metrics.roc_auc_score(labels, logits), abs=0.006)
    precision, recall, _ = metrics.precision_recall_curve(labels, logits)
    wanted = [precision[recall >= r - 1e-12][-1] for r in RECALL_GRID]
    assert precision_on_grid(labels, logits) == pytest.approx(wanted)
    for specificity in (0.5, 0.9, 0.99):
        assert sensitivity_at(labels, logits, specificity) == max(true[1 - false >= specificity - 1e-12])


def test_a_band_needs_two_curves():
    mean, lower, upper = mean_band(np.array([[0.2, 0.4]]), None)
    assert mean.tolist() == [0.2, 0.4]
    assert np.isnan(lower).all()
    assert np.isnan(upper).all()
