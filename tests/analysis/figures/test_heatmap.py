"""Heat maps show the means of the cells, in colours that rise in grey."""

import warnings

import numpy as np
import pytest
from make_study import make_study

from analysis.cells.arrange import arrange
from analysis.figures import heatmap
from d2l_study.errors import UserError


def test_a_heat_map_shows_the_means_of_the_cells(tmp_path):
    made = make_study(tmp_path, num_bags=(50, 100, 200), bag_sizes=(10, 50), replicates=3, missing=((1, 0),)).rows()
    figure = heatmap.draw_heatmap(made)
    (field,) = figure.axes[1].get_images()
    assert figure.axes[1].get_title() == "vat"
    wanted = made[made.method == "vat"].pivot_table("bag_auc", "num_bags", "mean_bag_size").to_numpy()
    assert np.asarray(field.get_array()) == pytest.approx(wanted)
    texts = [t.get_text() for t in figure.axes[1].texts]
    assert f"{wanted[0, 0]:.3f}" in texts[0]
    layout = arrange(made, None, "num_bags", "mean_bag_size", "method")
    assert f"± {layout.cells[layout.panels[1], layout.rows[0], layout.columns[0]].interval.half_width:.3f}" in texts[0]


def test_an_infinite_mean_is_a_sign_in_its_field_and_leaves_the_colours_to_the_others(tmp_path):
    made = make_study(tmp_path, num_bags=(50, 100, 200), bag_sizes=(10, 50), replicates=3).rows()
    whole = heatmap.draw_heatmap(made, "bag_nll")
    finite = made[(made["method"] == "vat") & (made["num_bags"] != 50)].groupby(["num_bags", "mean_bag_size"])
    made["bag_nll"] = made["bag_nll"] + 2 * (made["method"] == "none")
    at = (made["method"] == "vat") & (made["num_bags"] == 50) & (made["replicate"] == 1)
    made.loc[at, "bag_nll"] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = heatmap.draw_heatmap(made[made["method"] == "vat"], "bag_nll")
        figure.draw_without_rendering()
    (field,) = figure.axes[0].get_images()
    means = finite["bag_nll"].mean()
    assert field.get_clim() == (pytest.approx(means.min()), pytest.approx(means.max()))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:2] == ["∞", "∞"] and texts[2].startswith(f"{means[100, 10]:.3f}")
    note = " ".join(figure.get_supxlabel().split())
    assert "∞: 2 infinite means (vat at n = 50 and K = 10, vat at n = 50 and K = 50)" in note
    assert "infinite" not in whole.get_supxlabel()
    with pytest.raises(UserError, match="--kind heatmap: every mean of bag_nll is infinite"):
        heatmap.draw_heatmap(made.assign(bag_nll=np.inf), "bag_nll")


def test_a_row_that_no_panel_fills_is_left_out(tmp_path):
    made = make_study(tmp_path, num_bags=(50, 100, 200), bag_sizes=(10, 50), replicates=3).rows()
    plain = made.method == "none"
    made = made[~plain | ((made.num_bags == 50) & (made.mean_bag_size == 10))].copy()
    plain = made.method == "none"
    made["lambda_adv"] = made.num_bags.map({50: 0.25, 100: 0.5, 200: 1.0}).mask(plain, 0.0)
    made["epsilon"] = made.mean_bag_size.map({10: 2.0, 50: 4.0})
    made["num_bags"], made["mean_bag_size"] = 50, 10
    made.attrs = {"study": "made", "varied": ["lambda_adv", "epsilon"]}
    axis = heatmap.draw_heatmap(made).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["0.25", "0.5", "1"]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["2", "4"]
    assert len(axis.texts) == 6


def test_colours_of_a_heat_map_rise_in_grey():
    import matplotlib as mpl

    shades = mpl.colormaps["cividis"](np.linspace(0, 1, 50))[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(shades) > 0).all()
