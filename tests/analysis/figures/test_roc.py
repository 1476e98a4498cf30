"""ROC figures against a calculation of their own."""

import numpy as np
import pytest
from make_scores import stored_scores
from scipy import stats
from sklearn import metrics

from analysis.figures import roc
from analysis.figures.marks import COLOURS
from analysis.statistics.roc_curves import GRID


def test_the_band_of_an_roc_curve_is_the_t_interval_of_the_replicates(scored):
    figure = roc.draw_roc(scored, "roc", "bag")
    axis = next(a for a in figure.axes if "n = 100" in a.get_title())
    curves = []
    for labels, logits in stored_scores(scored, "vat", 100):
        false, true, _ = metrics.roc_curve(labels, logits, drop_intermediate=False)
        curves.append(np.interp(GRID, false, true))
    half = stats.t.ppf(0.975, 3) * np.std(curves, axis=0, ddof=1) / 2
    mean = np.mean(curves, axis=0)
    line = next(one for one in axis.get_lines() if one.get_color() == COLOURS[1])
    assert line.get_ydata()[1:] == pytest.approx(mean[1:])
    corners = axis.collections[1].get_paths()[0].vertices[:, 1]
    assert corners.max() == pytest.approx(min(1, (mean + half).max()))
    at = 10
    for bound in (np.clip(mean + half, 0, 1)[at], np.clip(mean - half, 0, 1)[at]):
        assert np.abs(corners - bound).min() < 1e-9


@pytest.mark.parametrize(
    ("case", "said", "banded"),
    [
        ("both", "points), with pointwise 95 % t intervals; dotted", [True, True]),
        ("none", "points); no bands, since more than 4 would hide each other; dotted", [False, False]),
        ("one", "intervals; no bands in panels of more than 4 curves, where they would hide each", [False, True]),
        ("single", "points); dotted: chance", [False, False]),
    ],
)
def test_the_note_speaks_of_bands_where_there_are_some(spread_cases, case, said, banded):
    figure = roc.draw_roc(spread_cases[case])
    assert said in " ".join(figure.get_supxlabel().split())
    assert [bool(axis.collections) for axis in figure.axes if axis.get_visible()] == banded
