"""Curves and points of a metric: they are the table's cells, and labels do not overlap."""

import itertools

import numpy as np
import pandas as pd
import pytest
from make_folds import make_folds
from make_study import make_distillation, make_study
from scipy.special import logit

import analysis
from analysis.cells.arrange import arrange
from analysis.figures.marks import COLOURS
from analysis.figures.metric_curves import draw_metric_curves
from d2l_study.errors import UserError


def curves(axis):
    """The lines with more than one point that are no edges of bands, as {colour: [(x, y)]}."""
    found = {}
    for line in axis.get_lines():
        if len(line.get_xdata()) > 1 and line.get_alpha() is None:
            points = list(zip(line.get_xdata(), line.get_ydata(), strict=True))
            found.setdefault(line.get_color(), []).append(points)
    return found


def test_curves_are_the_means_of_the_cells(incomplete):
    figure = draw_metric_curves(incomplete)
    axes = [a for a in figure.axes if a.get_visible()]
    assert [a.get_title() for a in axes] == ["K = 10", "K = 50"]
    layout = arrange(incomplete)
    for axis, panel in zip(axes, layout.panels, strict=True):
        wanted = {(c.value, layout.cells[panel, layout.rows[0], c].interval.mean) for c in layout.columns_of(panel)}
        (curve,) = curves(axis)[COLOURS[0]]
        assert set(curve) == wanted


def test_bands_are_the_intervals_of_the_cells(incomplete):
    axis = draw_metric_curves(incomplete).axes[1]
    layout = arrange(incomplete)
    panel = layout.panels[1]
    corners = {round(float(y), 9) for mean_band in axis.collections for y in mean_band.get_paths()[0].vertices[:, 1]}
    for row in layout.rows:
        for column in layout.columns:
            interval = layout.cells[panel, row, column].interval
            assert {round(interval.lower, 9), round(interval.upper, 9)} <= corners


def test_a_missing_cell_breaks_its_curve_and_an_incomplete_one_is_hollow(incomplete):
    first, second = draw_metric_curves(incomplete).axes[:2]
    vat = COLOURS[1]
    assert [[x for x, _ in piece] for piece in curves(first)[vat]] == [[200, 400]]
    assert [[x for x, _ in piece] for piece in curves(second)[vat]] == [[50, 100, 200, 400]]
    hollow = [line.get_xdata()[0] for line in second.get_lines() if line.get_markerfacecolor() == "white"]
    assert hollow == [50]


def test_the_note_says_what_the_interval_is_the_count_and_what_is_not_there(incomplete, tmp_path):
    def note(name, root, **arguments):
        return " ".join(draw_metric_curves(analysis.load(name, root), **arguments).get_supxlabel().split())

    make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10,), failed=tuple((1, r) for r in range(5)))
    text = note("made", tmp_path)
    assert "mean and 95 % interval (t on the logit, transformed back), 5 replicates; no point: no result" in text
    make_folds(tmp_path)
    assert "(t on the logit, corrected for folds, transformed back), 15 folds (of all repeats)" in note(
        "folded", tmp_path
    )


def test_a_cell_without_an_interval_ends_the_band_and_is_explained(tmp_path):
    rows = make_study(tmp_path, num_bags=(50, 100, 200, 400), bag_sizes=(10,), methods=("none",)).rows()
    whole = draw_metric_curves(rows)
    assert len(whole.axes[0].collections) == 1 and "no interval" not in whole.get_supxlabel()
    rows.loc[rows["num_bags"] == 100, "bag_auc"] = 0.9
    figure = draw_metric_curves(rows)
    bands = [band.get_paths()[0].vertices[:, 0] for band in figure.axes[0].collections if band.get_alpha() is not None]
    assert [(min(x), max(x)) for x in bands] == [(200, 400)]  # 50 stands alone and has a bar
    note = " ".join(figure.get_supxlabel().split())
    assert "no band or bar: no interval, since all values are equal and do not tell how much others" in note
    wide = rows.assign(bag_auc=rows["replicate"].map({0: 0.1, 1: 0.9}).fillna(0.5))
    assert "since it would cover more than half of all" in " ".join(draw_metric_curves(wide).get_supxlabel().split())
    single = draw_metric_curves(rows[rows["replicate"] == 0]).get_supxlabel()
    assert "a single replicate has no interval" in " ".join(single.split())


def test_an_infinite_mean_breaks_its_curve_and_is_named(tmp_path):
    rows = make_study(tmp_path, num_bags=(50, 100, 200, 400), bag_sizes=(10, 50)).rows()
    assert "infinite" not in draw_metric_curves(rows, "bag_nll").get_supxlabel()
    large = rows["mean_bag_size"] == 50
    rows.loc[(rows["method"] == "vat") & (rows["num_bags"] == 100) & ~large & (rows["replicate"] == 1), "bag_nll"] = (
        np.inf
    )
    figure = draw_metric_curves(rows, "bag_nll")
    assert [[x for x, _ in piece] for piece in curves(figure.axes[0])[COLOURS[1]]] == [[200, 400]]
    note = " ".join(figure.get_supxlabel().split())
    assert "; not drawn: 1 infinite mean (vat at K = 10 and n = 100)" in note
    points = draw_metric_curves(rows[rows["num_bags"] == 100], "bag_nll").axes
    assert [[text.get_text() for text in axis.texts] for axis in points] == [["infinite"], []]
    lost = draw_metric_curves(rows.assign(bag_nll=rows["bag_nll"].mask(large, np.inf)), "bag_nll")
    assert [text.get_text() for text in lost.axes[1].texts] == ["no finite result: 8\nconfigurations infinite"]
    with pytest.raises(UserError, match="every mean of bag_nll is infinite"):
        draw_metric_curves(rows.assign(bag_nll=np.inf), "bag_nll")


def test_what_is_no_number_of_bags_is_named_with_its_rows(tmp_path):
    rows = make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10,), replicates=2).rows()
    given = rows.assign(num_bags=rows["num_bags"].astype(float))
    given.attrs = rows.attrs
    given.loc[(given["method"] == "vat") & (given["num_bags"] == 100), "num_bags"] = None
    with pytest.raises(UserError, match=r"against num_bags needs positive numbers there, found no value \(vat\)$"):
        draw_metric_curves(given)
    given["num_bags"] = given["num_bags"].fillna(-1)
    with pytest.raises(UserError, match=r"needs positive numbers there, found n = -1 \(vat\)$"):
        draw_metric_curves(given)


def test_bands_that_no_cell_has_are_not_said_to_be_left_out(tmp_path):
    arms = tuple("abcdefghi")
    rows = make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10,), methods=arms, replicates=2).rows()
    assert "no bands, since more than 8" in " ".join(draw_metric_curves(rows).get_supxlabel().split())
    note = " ".join(draw_metric_curves(rows[rows["replicate"] == 0]).get_supxlabel().split())
    assert "no bands" not in note and "a single replicate has no interval" in note


def test_points_of_few_folds_say_why_they_have_no_bar(tmp_path):
    rows = make_folds(tmp_path, images=12, repeats=1, folds=3).rows()
    rows["bag_auc"] = rows["fold"].map({0: 0.2, 1: 0.9, 2: 0.6})
    note = " ".join(draw_metric_curves(rows, "bag_auc").get_supxlabel().split())
    assert "; no bar: no interval, since it would cover" in note


def test_ticks_stand_at_the_numbers_of_bags_and_do_not_touch(incomplete):
    figure = draw_metric_curves(incomplete)
    figure.draw_without_rendering()
    for axis in figure.axes:
        labels = axis.get_xticklabels()
        assert [label.get_text() for label in labels] == ["50", "100", "200", "400"]
        boxes = [label.get_window_extent() for label in labels]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_close_ticks_are_turned(tmp_path):
    rows = make_study(tmp_path, num_bags=(1000, 1010, 1020, 1030, 2000), bag_sizes=(10,), replicates=2).rows()
    figure = draw_metric_curves(rows)
    assert {label.get_rotation() for label in figure.axes[0].get_xticklabels()} == {90.0}


def test_the_legend_covers_no_panel(tmp_path):
    for count in (2, 9):
        rows = make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10,), replicates=2).rows()
        arms = [rows[rows.method == "vat"].assign(method=f"a rather long name {i}") for i in range(count)]
        figure = draw_metric_curves(pd.concat(arms))
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert not any(box.overlaps(axis.get_window_extent()) for axis in figure.axes)
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert len(legend.get_texts()) == count


@pytest.mark.parametrize("scale", ["linear", "logit"])
def test_a_single_number_of_bags_gives_points_with_error_bars(tmp_path, scale):
    rows = make_study(tmp_path, num_bags=(50,), bag_sizes=(10, 50), missing=tuple((2, r) for r in range(5))).rows()
    figure = draw_metric_curves(rows, scale=scale)
    first, second = figure.axes[:2]
    assert [label.get_text() for label in first.get_yticklabels()] == ["none", "vat"]
    layout = arrange(rows)
    interval = layout.cells[layout.panels[1], layout.rows[1], layout.columns[0]].interval
    ends = [tuple(line.get_xdata()) for line in second.get_lines() if len(line.get_xdata()) == 2]
    assert (interval.lower, interval.upper) in ends
    assert [text.get_text() for text in first.texts] == ["missing"]


def test_the_axis_of_an_auc_ends_at_one(incomplete):
    lower, upper = (
        draw_metric_curves(incomplete.assign(bag_auc=incomplete["bag_auc"].clip(upper=0.99) + 0.01)).axes[0].get_ylim()
    )
    assert upper == 1.0 and lower < 0.95
    assert draw_metric_curves(incomplete, "bag_nll").axes[0].get_ylim()[1] > 0
    one = incomplete[incomplete["num_bags"] == 50].assign(bag_auc=1.0)
    axis = draw_metric_curves(one).axes[0]
    assert axis.get_xlim()[1] == 1.0 and not any(line.get_clip_on() for line in axis.get_lines())


def test_a_panel_without_results_says_why(tmp_path):
    failed = tuple((i, r) for i in (2, 3, 6, 7) for r in range(2))
    rows = make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10, 50), replicates=2, failed=failed).rows()
    first, second = draw_metric_curves(rows).axes[:2]
    assert [text.get_text() for text in second.texts] == ["no result: 4 configurations\nfailed"]
    assert not first.texts and first.get_xlim() == second.get_xlim()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "bag_acu"}, "did you mean 'bag_auc'"),
        ({"x_key": "pooling"}, "positive numbers"),
        ({"scale": "log"}, "scales: linear, logit"),
        ({"metric": "bag_nll", "scale": "logit"}, "does not lie in"),
    ],
)
def test_what_cannot_be_drawn(incomplete, arguments, message):
    with pytest.raises(UserError, match=message):
        draw_metric_curves(incomplete, **arguments)


def test_a_study_without_results_says_so(tmp_path):
    rows = make_study(tmp_path, missing=tuple((i, r) for i in range(12) for r in range(5))).rows()
    with pytest.raises(UserError, match="nothing to draw"):
        draw_metric_curves(rows)


def test_a_perfect_mean_is_refused_on_the_logit_scale(incomplete):
    with pytest.raises(UserError, match="exactly 0 or 1"):
        draw_metric_curves(incomplete.assign(bag_auc=1.0), scale="logit")
    draw_metric_curves(incomplete.assign(bag_auc=1.0))


def test_ticks_of_a_logit_axis_do_not_touch(tmp_path):
    figure = draw_metric_curves(make_distillation(tmp_path, num_bags=(50,)).rows(), scale="logit")
    figure.draw_without_rendering()
    (axis,) = figure.axes
    lower, upper = axis.get_xlim()
    boxes = [label.get_window_extent() for label, at in zip(axis.get_xticklabels(), axis.get_xticks(), strict=True)
             if lower <= at <= upper]  # fmt: skip
    assert len(boxes) >= 3
    drawn = np.concatenate([line.get_xdata() for line in axis.get_lines() if len(line.get_xdata())])
    inside = drawn[(drawn > 0) & (drawn < 1)]
    assert logit(upper) - logit(lower) < 1.3 * (logit(inside.max()) - logit(inside.min()))
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_a_narrow_logit_axis_has_ticks_too(distilled):
    rows = distilled[distilled["stage"] == "teacher"].assign(instance_auc=lambda r: 0.985 + 0.0005 * r["replicate"])
    axis = draw_metric_curves(rows, "instance_auc", scale="logit").axes[0]
    lower, upper = axis.get_ylim()
    assert sum(lower <= at <= upper for at in axis.get_yticks()) >= 2
