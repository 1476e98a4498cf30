"""Figures of every kind: options, refusals, sizes and file formats."""

import io

import numpy as np
import pandas as pd
import pytest
from label_boxes import misplaced, words_of
from make_study import make_distillation, make_study
from PIL import Image

import analysis
from analysis.figures import heatmap, learning_curves, roc
from analysis.figures.figure import figure
from analysis.figures.files import save_figure
from analysis.figures.metric_curves import draw_metric_curves
from analysis.figures.reliability import Reliability
from analysis.figures.sizes import SIZES
from d2l_study.errors import UserError


def test_each_format_is_what_its_suffix_says(incomplete, tmp_path):
    figure = draw_metric_curves(incomplete)
    png, svg, pdf = (save_figure(figure, tmp_path / f"auc.{s}").read_bytes() for s in ("png", "svg", "pdf"))
    with Image.open(io.BytesIO(png)) as image:
        assert image.width > 1000
        assert len(np.unique(np.asarray(image.convert("L")))) > 50
    assert svg.startswith(b"<?xml") and b"</svg>" in svg
    assert pdf.startswith(b"%PDF-")
    once, again = (save_figure(draw_metric_curves(incomplete), tmp_path / f"{i}.svg").read_bytes() for i in range(2))
    assert once == again


def test_a_written_slide_has_the_pixels_of_its_size(incomplete, tmp_path):
    for size, wide, high in (("slide", 40 / 3, 7.5), ("page", 7.0, None), ("column", 3.4, None)):
        with Image.open(save_figure(draw_metric_curves(incomplete, size=size), tmp_path / f"{size}.png")) as image:
            assert image.width == pytest.approx(220 * wide, abs=1)
            assert high is None or image.height == pytest.approx(220 * high, abs=1)


def test_any_figure_by_its_kind_in_python(incomplete):
    assert figure(incomplete).axes[0].get_ylabel() == draw_metric_curves(incomplete).axes[0].get_ylabel()
    assert figure(incomplete, "heatmap", metric="instance_auc", size="slide").get_figwidth() == pytest.approx(40 / 3)
    for arguments, message in (
        ({"kind": "curvs"}, "kind curvs: not known; did you mean 'curves'"),
        ({"kind": "roc", "metric": "bag_auc"}, "metric bag_auc: not of kind roc"),
        ({"kind": "curves", "sclae": "logit"}, "sclae: no option of a figure; did you mean 'scale'"),
        ({"kind": "best"}, "came from a file or from MLflow alone"),
    ):
        with pytest.raises(UserError, match=message):
            figure(incomplete, **arguments)
    assert analysis.figure is figure


def test_what_a_kind_lacks_is_said(tmp_path, scored):
    plain = make_study(tmp_path / "a", num_bags=(50,), bag_sizes=(10,), replicates=2)
    bare = analysis.load("made", tmp_path / "a")
    for draw, text in (
        (lambda: roc.draw_roc(bare), "kept predictions of the level bag"),
        (lambda: roc.draw_roc(plain.rows()), "came from a file or from MLflow alone"),
        (lambda: Reliability.of(scored.assign(instance_auc=np.nan), "instance"), "level instance"),
        (lambda: learning_curves.draw_learning(scored), r"kept curve\.json"),
        (lambda: heatmap.draw_heatmap(bare), "needs two keys that vary"),
        (lambda: heatmap.draw_heatmap(scored, row_key="num_bags", column_key="method"), "have a panel each"),
        (
            lambda: heatmap.draw_heatmap(scored, row_key="num_bags", column_key="lambda_adv"),
            "no arm has several values",
        ),
        (lambda: heatmap.draw_heatmap(bare, size="poster"), "needs two keys"),
        (lambda: roc.draw_roc(scored, size="pgae"), "did you mean 'page'"),
    ):
        with pytest.raises(UserError, match=text):
            draw()
    many = pd.concat([bare.assign(epsilon=float(i), config_id=bare["config_id"] + str(i)) for i in range(30)])
    many.attrs = {**bare.attrs, "varied": ["epsilon", "lambda_adv"]}
    with pytest.raises(UserError, match="30 values, more than the 24"):
        heatmap.draw_heatmap(many, row_key="epsilon", column_key="lambda_adv")


@pytest.mark.slow
@pytest.mark.parametrize("size", sorted(SIZES))
def test_labels_do_not_overlap_in_any_size(tmp_path, scored, size):
    """Titles, labels, ticks, the legend and the footnote of each figure, and everything within the figure."""
    students = make_distillation(tmp_path, num_bags=(50, 100), replicates=3).rows()
    grid = make_study(tmp_path / "g", num_bags=(50, 100, 200, 400), bag_sizes=(10, 50, 100), replicates=2).rows()
    long = {name: f"{name}, an arm whose name is a good deal longer than its panel is wide" for name in ("none", "vat")}
    from analysis.figures import metric_curves, paired

    drawn = [
        roc.draw_roc(scored, "roc", "bag", size=size),
        Reliability.of(scored, "bag").draw(size),
        heatmap.draw_heatmap(grid, size=size),
        heatmap.draw_heatmap(grid.replace({"method": long}), size=size),
        metric_curves.draw_metric_curves(grid, size=size),
        metric_curves.draw_metric_curves(students, size=size),
        paired.draw_pairs(students, size=size),
    ]
    for one in drawn:
        assert one.get_figwidth() == pytest.approx({"column": 3.4, "page": 7.0, "slide": 40 / 3}[size])
        if size == "slide":
            assert one.get_figheight() == pytest.approx(7.5)
        assert misplaced(one) == []


@pytest.fixture(scope="module")
def seventeen(tmp_path_factory):
    """Two teachers, four students and their references."""
    root = tmp_path_factory.mktemp("runs")
    references = ("matched", "no_soft_labels", "pooled", "oracle")
    make_distillation(root, num_bags=(50, 100), replicates=2, references=references, with_predictions=True)
    return analysis.load("distilled", root)


@pytest.mark.slow
@pytest.mark.parametrize("size", sorted(SIZES))
def test_every_row_of_seventeen_is_in_the_legend_and_above_the_note(seventeen, size):
    one = seventeen[seventeen["num_bags"] == 50]
    one.attrs = seventeen.attrs
    drawn = [
        draw_metric_curves(seventeen, size=size),
        roc.draw_roc(one, "roc", size=size),
        roc.draw_roc(seventeen, "pr", size=size),
        Reliability.of(one, "bag").draw(size),
    ]
    for made in drawn:
        (legend,) = made.legends
        assert len(legend.get_texts()) == 17 and misplaced(made) == []
        heights = [axis.get_window_extent().height / made.dpi for axis in made.axes if axis.get_visible()]
        assert min(heights) > 1.0


def test_more_bands_than_can_be_told_apart_are_left_out_and_the_note_says_so(seventeen):
    whole = draw_metric_curves(seventeen)
    assert not whole.axes[0].collections
    note = words_of(whole)
    assert "no bands, since more than 8 would hide each other" in note and "95 % interval" not in note
    few = draw_metric_curves(seventeen[seventeen["stage"].isin(["teacher", "student", "pooled"])])
    assert len(few.axes[0].collections) == 8 and "no bands" not in words_of(few)
    assert "mean and 95 % interval" in words_of(few)


def test_a_figure_is_written_in_every_format(tmp_path, scored):
    from analysis.figures.files import save_figure

    figure = roc.draw_roc(scored, "pr", "instance")
    heads = {".svg": b"<?xml", ".pdf": b"%PDF", ".png": b"\x89PNG"}
    for suffix, head in heads.items():
        assert io.FileIO(save_figure(figure, tmp_path / f"f{suffix}")).read(5).startswith(head[:4])
