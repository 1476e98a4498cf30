"""The figure of students and their teachers: its dots are the paired differences."""

import re

import numpy as np
import pytest
from make_study import make_study
from scipy import stats
from students import student_minus_teacher

from analysis.figures.paired import draw_pairs
from d2l_study.errors import UserError


# ---- figures
def test_the_dots_are_the_paired_differences(distilled):
    figure = draw_pairs(distilled)
    axes = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in axes] == ["K = 10, n = 50", "K = 10, n = 100"]
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert len(names) == 8
    for axis, n in zip(axes, (50, 100), strict=True):
        dots = [line for line in axis.get_lines() if line.get_alpha() is not None]
        assert len(dots) == len(names)
        for name, line in zip(names, dots, strict=True):
            method, temperature = re.fullmatch(r"(.*) \(temperature=(\d)\)", name).groups()
            values = student_minus_teacher(distilled, method, n, float(temperature))
            np.testing.assert_allclose(sorted(line.get_xdata()), sorted(values))
            assert {round(y) for y in line.get_ydata()} == {names.index(name)}


def test_means_of_both_sides_are_those_of_the_pairs_and_gaps_are_named(faulty):
    axis = draw_pairs(faulty).axes[0]
    texts = [text.get_text() for text in axis.texts]
    own = faulty[faulty["num_bags"] == 50].set_index(["method", "replicate"])["instance_auc"]
    teacher, student = own["none"][[0, 2, 4]].mean(), own["none → plain"][[0, 2, 4]].mean()
    assert f"{teacher:.4f} → {student:.4f} (3)" in texts
    assert texts.count("not run") == 2
    markers = [line for line in axis.get_lines() if line.get_markerfacecolor() == "white"]
    assert len(markers) == 2


@pytest.mark.parametrize("side", ["none", "none → plain"])
def test_hollow_markers_are_explained_whichever_side_lacks_a_run(distilled, side):
    whole = draw_pairs(distilled)
    assert "hollow" not in whole._supxlabel.get_text()
    rows = distilled.copy()
    rows.attrs = distilled.attrs
    rows.loc[(rows["method"] == side) & (rows["replicate"] == 2), "instance_auc"] = np.nan
    figure = draw_pairs(rows)
    assert any(line.get_markerfacecolor() == "white" for line in figure.axes[0].get_lines())
    assert "hollow: fewer pairs than planned" in " ".join(figure._supxlabel.get_text().split())


def test_an_infinite_difference_is_named_since_it_has_no_place_on_the_axis(distilled):
    rows = distilled.assign(bag_nll=0.3 + 0.01 * distilled["replicate"] + 0.1 * (distilled["stage"] == "student"))
    rows.attrs = distilled.attrs
    assert "infinite" not in draw_pairs(rows, "bag_nll").get_supxlabel()
    ran_away = (rows["method"] == "vat → plain") & (rows["num_bags"] == 50) & (rows["temperature"] == 4)
    rows.loc[ran_away & (rows["replicate"] == 1), "bag_nll"] = np.inf
    note = " ".join(draw_pairs(rows, "bag_nll").get_supxlabel().split())
    assert "; not drawn: 1 infinite mean (vat → plain (temperature=4))" in note


def test_numbers_and_labels_stay_inside_the_figure_and_apart(distilled):
    figure = draw_pairs(distilled)
    figure.draw_without_rendering()
    first, second = figure.axes
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in axis.texts]
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert max(text.get_window_extent().x1 for text in first.texts) < second.get_window_extent().x0
    assert min(label.get_window_extent().x0 for label in first.get_yticklabels()) >= figure.bbox.x0


def test_nothing_to_pair_is_said(distilled, tmp_path):
    with pytest.raises(UserError, match="no finished student beside its teacher"):
        draw_pairs(make_study(tmp_path, num_bags=(50,), replicates=2).rows())
    with pytest.raises(UserError, match="no finished student beside its teacher"):
        draw_pairs(distilled[distilled["stage"] != "teacher"])


@pytest.mark.slow
def test_students_of_folds_are_drawn_beside_their_teachers_with_the_corrected_interval(fold_rows):
    rows = fold_rows[fold_rows["stage"] == "teacher"].copy()
    student, teacher = rows["method"] == "vat", rows["method"] == "none"
    rows.loc[student, "stage"] = "student"
    rows.loc[student, "teacher_id"] = rows.loc[teacher, "config_id"].iloc[0]
    rows.loc[student, "teacher_method"] = "none"
    (axis,) = draw_pairs(rows, "instance_auc").axes
    done = [frame.set_index("replicate")["instance_auc"] for frame in (rows[student], rows[teacher])]
    gain = (done[0] - done[1]).dropna()
    half = stats.t.ppf(0.975, len(gain) - 1) * gain.std() * np.sqrt(1 / len(gain) + 1 / 3)
    drawn = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    assert any(np.allclose(x, [gain.mean() - half, gain.mean() + half]) for x in drawn)
    assert len(gain) == 14 and any(text.get_text().endswith("(14)") for text in axis.texts)
