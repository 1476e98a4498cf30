"""Studies of students: who stands where, who is compared with whom, and that the oracle is never taken for a method."""

import csv
import io
import itertools
import re

import numpy as np
import pytest
from make_study import make_distillation, make_study
from scipy.special import logit

from analysis.cells.arrange import arrange
from analysis.cells.differences import TO_BASELINE, TO_TEACHER, differences
from analysis.figures import style
from analysis.figures.marks import COLOURS, LINES, marks_of, stage_marks
from analysis.figures.metric_curves import draw_metric_curves
from analysis.figures.paired import draw_pairs
from analysis.statistics.intervals import mean_difference
from analysis.tables.study_table import render
from d2l_study.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_distillation(tmp_path_factory.mktemp("runs"), temperatures=(1.0, 4.0)).rows()


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    failed = (*(("vat", r) for r in range(5)), ("none", 1), ("none → plain", 3), *(("oracle", r) for r in range(5)))
    return make_distillation(tmp_path_factory.mktemp("runs"), failed=failed).rows()


def lines_of(text):
    """The table's lines as [(row label, [cells])], in order."""
    found = []
    for line in text.splitlines():
        if line.startswith("|"):
            label, *cells = [c.strip() for c in line.strip("|").split(" | ")]
            found.append((label, cells))
    return found[2:]


def by_hand(rows, method, num_bags, temperature=None, metric="instance_auc"):
    """Student minus teacher for each replicate, joined on the teacher's id and the replicate."""
    chosen = rows[(rows["method"] == method) & (rows["num_bags"] == num_bags)]
    if temperature is not None:
        chosen = chosen[chosen["temperature"] == temperature]
    both = chosen.merge(rows[["config_id", "replicate", metric]], left_on=["teacher_id", "replicate"],
                        right_on=["config_id", "replicate"], suffixes=("", "_of_teacher"))  # fmt: skip
    return (both[metric] - both[f"{metric}_of_teacher"]).dropna().to_numpy()


def test_a_study_with_students_is_about_instances(made, tmp_path):
    assert render(made).startswith("**distilled: instance AUC")
    assert render(made, "bag_auc").startswith("**distilled: bag AUC")
    assert render(made[made["stage"] != "student"]).startswith("**distilled: bag AUC")
    assert render(make_study(tmp_path, num_bags=(50,)).rows()).startswith("**made: bag AUC")


def test_teachers_students_references_and_differences_stand_in_this_order(made):
    labels = [label for label, _ in lines_of(render(made))]
    assert labels[:3] == ["*teachers*", "none", "vat"]
    assert labels[3:6] == ["*students*", "none → plain (temperature=1)", "none → plain (temperature=4)"]
    at = labels.index("*references*")
    references = ["bag_label", "attention of none", "attention of vat", "oracle †"]
    assert labels[at + 1 : at + 7] == [*references, "*paired differences*", "vat − none"]
    assert labels[at + 7] == "none → plain (temperature=1) − its teacher"
    assert len(labels) == at + 7 + 8
    shuffled = [label for label, _ in lines_of(render(made.sample(frac=1, random_state=0)))]
    assert [shuffled.index(g) for g in ("*teachers*", "*students*", "*references*")] == [0, 3, at]


def test_a_student_is_paired_with_its_own_teacher_by_replicate(made):
    table = dict(lines_of(render(made)))
    for teacher in ("none", "vat"):
        for temperature in (1.0, 4.0):
            cells = table[f"{teacher} → noisy (temperature={temperature:g}) − its teacher"]
            for cell, n in zip(cells, (50, 100), strict=True):
                wanted = mean_difference(by_hand(made, f"{teacher} → noisy", n, temperature))
                mean, half, count = re.fullmatch(r"([+−][\d.]+) ± ([\d.]+) \((\d)\)", cell).groups()
                assert float(mean.replace("−", "-")) == pytest.approx(wanted.mean, abs=6e-4)
                assert float(half) == pytest.approx(wanted.half_width, abs=6e-4)
                assert count == "5"


def test_the_teacher_is_found_by_its_id_and_not_by_a_name(made):
    teachers = made[made["stage"] == "teacher"].set_index(["method", "num_bags"])["config_id"]
    swapped = made.copy()
    students = (made["method"] == "vat → noisy") & (made["num_bags"] == 50)
    swapped.loc[students, "teacher_id"] = teachers["none", 50].iloc[0]
    swapped.attrs = made.attrs
    name = "vat → noisy (temperature=1) − its teacher"
    before, after = (dict(lines_of(render(rows)))[name] for rows in (made, swapped))
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert float(after[0].split()[0]) == pytest.approx(by_hand(swapped, "vat → noisy", 50, 1.0).mean(), abs=6e-4)


def test_a_student_of_an_ensemble_is_paired_with_its_first_teacher(made):
    rows = made.copy()
    rows.attrs = made.attrs
    students = rows["teacher_id"].notna()
    rows.loc[students, "teacher_id"] = rows.loc[students, "teacher_id"] + "," + "f" * 20
    assert "its teacher" in render(made) and render(rows) == render(made)


def test_pairs_leave_out_replicates_that_one_side_lacks(faulty):
    layout = arrange(faulty)
    (panel,) = layout.panels
    found = {one.text: one for one in differences(layout, panel)}
    for text, count in (("none → plain − its teacher", 3), ("none → noisy − its teacher", 4)):
        for column, interval in found[text].by_column.items():
            values = by_hand(faulty, text.removesuffix(" − its teacher"), column.value)
            assert interval.count == count == len(values)
            assert interval.mean == pytest.approx(values.mean())
    assert set(found) == {"none → plain − its teacher", "none → noisy − its teacher"}


def test_students_of_a_failed_teacher_were_not_run(faulty):
    text = render(faulty)
    table = dict(lines_of(text))
    assert table["vat"] == table["oracle †"] == ["failed"] * 2
    assert table["vat → plain"] == table["vat → noisy"] == table["attention of vat"] == ["not run"] * 2
    assert all(cell.endswith("(3 of 5)") for cell in table["none → plain"])
    assert "Not run: its teacher failed." in " ".join(text.split())
    assert r"\emph{not run}" in render(faulty, format="latex")


def test_a_metric_that_a_stage_does_not_have_is_a_dash(made):
    text = render(made, "bag_auc")
    table = dict(lines_of(text))
    assert table["attention of vat"] == ["–", "–"]
    assert "attention has no bag AUC." in " ".join(text.split())
    assert table["bag_label"][0] != "–"
    loss = render(made, "val_distill_loss")
    assert dict(lines_of(loss))["vat"] == ["–", "–"]
    assert "its teacher" not in loss


@pytest.mark.parametrize("turned", [False, True])
def test_the_oracle_is_marked_everywhere_and_never_the_best(made, turned):
    axes = {"row_key": "num_bags", "column_key": "method", "panel_key": None} if turned else {}
    assert made.loc[made["stage"] == "oracle", "instance_auc"].min() > made.loc[
        made["stage"] != "oracle", "instance_auc"].mean()  # fmt: skip
    text = render(made, **axes)
    assert text.count("oracle †") >= 1
    assert len(re.findall(r"\*\*0\.", text)) == 2
    for label, cells in lines_of(text):
        assert "†" not in label or not any("**" in cell for cell in cells)
    assert "† aside" in " ".join(text.split())
    latex = render(made, format="latex", **axes)
    assert latex.isascii()
    assert r"oracle $\dagger$" in latex
    assert not re.search(r"dagger.*textbf", latex[latex.index("midrule") :])
    table = list(csv.DictReader(io.StringIO(render(made, format="csv", **axes))))
    assert {t["stage"] for t in table if t["method"] == "oracle"} == {"oracle"}
    if not turned:
        assert {t["row"] for t in table if t["method"] == "oracle"} == {"oracle †"}


def test_bag_labels_may_be_the_best_since_they_saw_no_instance_label(made):
    rows = made.copy()
    rows.loc[rows["stage"] == "bag_label", "instance_auc"] = np.linspace(0.996, 0.998, 10)
    rows.attrs = made.attrs
    assert all(cell.startswith("**") for cell in dict(lines_of(render(rows)))["bag_label"])


def test_the_long_form_names_stages_arms_and_kinds(made):
    table = list(csv.DictReader(io.StringIO(render(made, format="csv"))))
    kinds = {kind: [t for t in table if t["kind"] == kind] for kind in ("value", TO_TEACHER, TO_BASELINE)}
    assert [len(found) for found in kinds.values()] == [2 * (2 + 8 + 4), 2 * 8, 2]
    assert sum(len(found) for found in kinds.values()) == len(table)
    for line in kinds[TO_TEACHER]:
        assert (line["stage"], line["baseline"]) == ("student", "its teacher")
        assert line["method"] == f"{line['teacher_method']} → {line['student_method']}"
        values = by_hand(made, line["method"], int(line["num_bags"]), float(line["temperature"]))
        assert float(line["mean"]) == pytest.approx(values.mean())
        assert (line["count"], line["planned"], line["status"]) == ("5", "5", "done")
    assert {t["baseline"] for t in kinds[TO_BASELINE]} == {"none"}
    assert {t["teacher_method"] for t in table if t["stage"] == "attention"} == {"none", "vat"}


def test_a_difference_far_smaller_than_the_spread_keeps_its_digits(made):
    rows = made.copy()
    teachers = made.set_index(["config_id", "replicate"])["instance_auc"]
    for i in rows.index[rows["stage"] == "student"]:
        own = teachers[rows.at[i, "teacher_id"], rows.at[i, "replicate"]]
        rows.at[i, "instance_auc"] = own + 0.0004 + 0.0001 * (rows.at[i, "replicate"] % 2)
    rows.attrs = made.attrs
    assert dict(lines_of(render(rows)))["vat → plain (temperature=1) − its teacher"][0] == "+0.0004 ± 0.0001 (5)"


# ---- figures
def test_the_dots_are_the_paired_differences(made):
    figure = draw_pairs(made)
    axes = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in axes] == ["K = 10, n = 50", "K = 10, n = 100"]
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert len(names) == 8
    for axis, n in zip(axes, (50, 100), strict=True):
        dots = [line for line in axis.get_lines() if line.get_alpha() is not None]
        assert len(dots) == len(names)
        for name, line in zip(names, dots, strict=True):
            method, temperature = re.fullmatch(r"(.*) \(temperature=(\d)\)", name).groups()
            values = by_hand(made, method, n, float(temperature))
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


def test_numbers_and_labels_stay_inside_the_figure_and_apart(made):
    figure = draw_pairs(made)
    figure.draw_without_rendering()
    first, second = figure.axes
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in axis.texts]
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert max(text.get_window_extent().x1 for text in first.texts) < second.get_window_extent().x0
    assert min(label.get_window_extent().x0 for label in first.get_yticklabels()) >= figure.bbox.x0


def test_nothing_to_pair_is_said(made, tmp_path):
    with pytest.raises(UserError, match="no finished student beside its teacher"):
        draw_pairs(make_study(tmp_path, num_bags=(50,), replicates=2).rows())
    with pytest.raises(UserError, match="no finished student beside its teacher"):
        draw_pairs(made[made["stage"] != "teacher"])


def test_curves_tell_teacher_student_and_reference_apart(made):
    (legend,) = draw_metric_curves(made).legends
    assert len(legend.get_lines()) == 2 + 8 + 4
    layout = arrange(made)
    looks = {row.text: mark for row, mark in marks_of(layout).items()}
    assert len({(mark.colour, mark.marker, str(mark.line)) for mark in looks.values()}) == len(looks)
    assert (looks["oracle †"].colour, looks["oracle †"].line) == (style.GREY, LINES[1])
    assert {looks[f"attention of {t}"].colour for t in ("none", "vat")} == {COLOURS[-1]}
    drawn = legend.get_lines()[-1]
    assert (drawn.get_color(), drawn.get_linestyle()) == (style.GREY, "--")
    names = [text.get_text() for text in draw_metric_curves(made, "bag_auc").legends[0].get_texts()]
    assert not any(name.startswith("attention") for name in names)


@pytest.mark.parametrize("students", [1, 4, 7])
def test_looks_differ_without_colour(students):
    teachers = ["none", "vat", "dropout"]
    curves = [("teacher", t, "") for t in teachers]
    curves += [("student", t, f"s{i}") for t in teachers for i in range(students)]
    curves += [("bag_label", "bag_label", ""), *(("attention", t, "") for t in teachers), ("oracle", "oracle", "")]
    looks = stage_marks(curves)
    assert len({(look.marker, str(look.line)) for look in looks}) == len(curves)
    own = dict(zip(curves, looks, strict=True))
    same = "colour" if students <= 4 else "line"
    for t in teachers:
        assert len({str(getattr(own[c], same)) for c in curves if c[1] == t and c[0] in ("teacher", "student")}) == 1
    assert {own[c].colour for c in curves[-5:]} == {COLOURS[-1], style.GREY}


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


def test_a_narrow_logit_axis_has_ticks_too(made):
    rows = made[made["stage"] == "teacher"].assign(instance_auc=lambda r: 0.985 + 0.0005 * r["replicate"])
    axis = draw_metric_curves(rows, "instance_auc", scale="logit").axes[0]
    lower, upper = axis.get_ylim()
    assert sum(lower <= at <= upper for at in axis.get_yticks()) >= 2
