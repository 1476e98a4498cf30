"""Figures: the curves are the table's cells, labels do not overlap, looks differ in more than colour."""

import io
import itertools

import numpy as np
import pandas as pd
import pytest
from make_folds import make_folds
from make_study import make_study
from PIL import Image

import analysis
from analysis.cells.arrange import arrange
from analysis.figures.figure import figure
from analysis.figures.files import save_figure
from analysis.figures.marks import COLOURS, family_marks
from analysis.figures.metric_curves import draw_metric_curves
from d2l_study.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    # Configurations 0–3 are none at K=10, 4–7 none at K=50, 8–11 vat at K=10, 12–15 vat at K=50.
    return make_study(
        tmp_path_factory.mktemp("runs"),
        num_bags=(50, 100, 200, 400),
        missing=((4, 0), *((9, r) for r in range(5))),
    ).rows()


def curves(axis):
    """The lines with more than one point that are no edges of bands, as {colour: [(x, y)]}."""
    found = {}
    for line in axis.get_lines():
        if len(line.get_xdata()) > 1 and line.get_alpha() is None:
            points = list(zip(line.get_xdata(), line.get_ydata(), strict=True))
            found.setdefault(line.get_color(), []).append(points)
    return found


def test_curves_are_the_means_of_the_cells(made):
    figure = draw_metric_curves(made)
    axes = [a for a in figure.axes if a.get_visible()]
    assert [a.get_title() for a in axes] == ["K = 10", "K = 50"]
    layout = arrange(made)
    for axis, panel in zip(axes, layout.panels, strict=True):
        wanted = {(c.value, layout.cells[panel, layout.rows[0], c].interval.mean) for c in layout.columns_of(panel)}
        (curve,) = curves(axis)[COLOURS[0]]
        assert set(curve) == wanted


def test_bands_are_the_intervals_of_the_cells(made):
    axis = draw_metric_curves(made).axes[1]
    layout = arrange(made)
    panel = layout.panels[1]
    corners = {round(float(y), 9) for mean_band in axis.collections for y in mean_band.get_paths()[0].vertices[:, 1]}
    for row in layout.rows:
        for column in layout.columns:
            interval = layout.cells[panel, row, column].interval
            assert {round(interval.lower, 9), round(interval.upper, 9)} <= corners


def test_a_missing_cell_breaks_its_curve_and_an_incomplete_one_is_hollow(made):
    first, second = draw_metric_curves(made).axes[:2]
    vat = COLOURS[1]
    assert [[x for x, _ in piece] for piece in curves(first)[vat]] == [[200, 400]]
    assert [[x for x, _ in piece] for piece in curves(second)[vat]] == [[50, 100, 200, 400]]
    hollow = [line.get_xdata()[0] for line in second.get_lines() if line.get_markerfacecolor() == "white"]
    assert hollow == [50]


def test_the_note_says_what_the_interval_is_the_count_and_what_is_not_there(made, tmp_path):
    def note(name, root, **arguments):
        return " ".join(draw_metric_curves(analysis.load(name, root), **arguments).get_supxlabel().split())

    make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10,), failed=tuple((1, r) for r in range(5)))
    text = note("made", tmp_path)
    assert "mean and 95 % interval (t on the logit, transformed back), 5 replicates; no point: no result" in text
    make_folds(tmp_path)
    assert "(t on the logit, corrected for folds, transformed back), 15 folds (of all repeats)" in note(
        "folded", tmp_path
    )


def test_ticks_stand_at_the_numbers_of_bags_and_do_not_touch(made):
    figure = draw_metric_curves(made)
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


def test_looks_differ_without_colour():
    for families in ([f"m{i}" for i in range(9)], ["none", "a", "a", "b", "b", "c", "c", "d", "d"]):
        looks = family_marks(families)
        assert len({(m.marker, str(m.line)) for m in looks}) == len(families)
    assert len({m.colour for m in family_marks([f"m{i}" for i in range(9)])}) == 9
    shared = family_marks(["none", "a", "a"])
    assert shared[1].colour == shared[2].colour != shared[0].colour


def test_each_format_is_what_its_suffix_says(made, tmp_path):
    figure = draw_metric_curves(made)
    png, svg, pdf = (save_figure(figure, tmp_path / f"auc.{s}").read_bytes() for s in ("png", "svg", "pdf"))
    with Image.open(io.BytesIO(png)) as image:
        assert image.width > 1000
        assert len(np.unique(np.asarray(image.convert("L")))) > 50
    assert svg.startswith(b"<?xml") and b"</svg>" in svg
    assert pdf.startswith(b"%PDF-")
    once, again = (save_figure(draw_metric_curves(made), tmp_path / f"{i}.svg").read_bytes() for i in range(2))
    assert once == again


def test_the_axis_of_an_auc_ends_at_one(made):
    lower, upper = draw_metric_curves(made.assign(bag_auc=made["bag_auc"].clip(upper=0.99) + 0.01)).axes[0].get_ylim()
    assert upper == 1.0 and lower < 0.95
    assert draw_metric_curves(made, "bag_nll").axes[0].get_ylim()[1] > 0
    one = made[made["num_bags"] == 50].assign(bag_auc=1.0)
    axis = draw_metric_curves(one).axes[0]
    assert axis.get_xlim()[1] == 1.0 and not any(line.get_clip_on() for line in axis.get_lines())


def test_a_panel_without_results_says_why(tmp_path):
    failed = tuple((i, r) for i in (2, 3, 6, 7) for r in range(2))
    rows = make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10, 50), replicates=2, failed=failed).rows()
    first, second = draw_metric_curves(rows).axes[:2]
    assert [text.get_text() for text in second.texts] == ["no result: 4 configurations\nfailed"]
    assert not first.texts and first.get_xlim() == second.get_xlim()


def test_a_written_slide_has_the_pixels_of_its_size(made, tmp_path):
    for size, wide, high in (("slide", 40 / 3, 7.5), ("page", 7.0, None), ("column", 3.4, None)):
        with Image.open(save_figure(draw_metric_curves(made, size=size), tmp_path / f"{size}.png")) as image:
            assert image.width == pytest.approx(220 * wide, abs=1)
            assert high is None or image.height == pytest.approx(220 * high, abs=1)


def test_any_figure_by_its_kind_in_python(made):
    assert figure(made).axes[0].get_ylabel() == draw_metric_curves(made).axes[0].get_ylabel()
    assert figure(made, "heatmap", metric="instance_auc", size="slide").get_figwidth() == pytest.approx(40 / 3)
    for arguments, message in (
        ({"kind": "curvs"}, "kind curvs: not known; did you mean 'curves'"),
        ({"kind": "roc", "metric": "bag_auc"}, "metric bag_auc: not of kind roc"),
        ({"kind": "curves", "sclae": "logit"}, "sclae: no option of a figure; did you mean 'scale'"),
        ({"kind": "best"}, "came from a file or from MLflow alone"),
    ):
        with pytest.raises(UserError, match=message):
            figure(made, **arguments)
    assert analysis.figure is figure


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "bag_acu"}, "did you mean 'bag_auc'"),
        ({"x_key": "pooling"}, "positive numbers"),
        ({"scale": "log"}, "scales: linear, logit"),
        ({"metric": "bag_nll", "scale": "logit"}, "does not lie in"),
    ],
)
def test_what_cannot_be_drawn(made, arguments, message):
    with pytest.raises(UserError, match=message):
        draw_metric_curves(made, **arguments)


def test_a_study_without_results_says_so(tmp_path):
    rows = make_study(tmp_path, missing=tuple((i, r) for i in range(12) for r in range(5))).rows()
    with pytest.raises(UserError, match="nothing to draw"):
        draw_metric_curves(rows)


def test_a_perfect_mean_is_refused_on_the_logit_scale(made):
    with pytest.raises(UserError, match="exactly 0 or 1"):
        draw_metric_curves(made.assign(bag_auc=1.0), scale="logit")
    draw_metric_curves(made.assign(bag_auc=1.0))
