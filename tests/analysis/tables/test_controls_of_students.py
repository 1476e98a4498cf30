"""Students against their controls, in tables, captions and findings: the teachers that are matched to them in training,
and the same students without soft labels."""

import numpy as np
import pandas as pd
import pytest
from table_lines import table_lines

from analysis.cells.arrange import arrange
from analysis.cells.differences import TO_MATCHED, TO_NO_SOFT_LABELS, TO_TEACHER, differences
from analysis.figures.paired import draw_pairs
from analysis.report.findings import findings
from analysis.rows.stages import NO_MATCHED_NOTE
from analysis.tables.study_table import render, table


@pytest.fixture
def controlled(distilled):
    """The rows with a matched teacher for each teacher, a little better by a draw of its own, and what training saw."""
    matched = distilled[distilled["stage"] == "teacher"].copy()
    gain = np.random.default_rng(7).normal(0.005, 0.001, len(matched))
    matched = matched.assign(
        config_id="m" + matched["config_id"].str[1:], trial_id="m" + matched["trial_id"].str[1:], stage="matched",
        teacher_method=matched["method"], method="matched of " + matched["method"],
        instance_auc=matched["instance_auc"] + gain,
    )  # fmt: skip
    students = distilled["stage"] == "student"
    own = distilled.assign(matched_id=("m" + distilled["teacher_id"].str[1:]).where(students))
    made = pd.concat([own, matched], ignore_index=True)
    seen = {"teacher": 1000, "student": 2400, "matched": 3400}
    made["instance_visits"] = made["stage"].map(seen) * made["num_bags"] / 50
    made.attrs = distilled.attrs
    return made


def test_a_student_is_paired_with_its_matched_teacher_by_replicate(controlled):
    layout = arrange(controlled)
    (panel,) = layout.panels
    found = {one.text: one for one in differences(layout, panel) if one.kind == TO_MATCHED}
    students = controlled[controlled["stage"] == "student"]
    assert len(found) == students.groupby(["method", "temperature"]).ngroups
    both = students.merge(controlled, left_on=["matched_id", "replicate"], right_on=["config_id", "replicate"])
    both["d"] = both["instance_auc_x"] - both["instance_auc_y"]
    for (method, temperature, n), group in both.groupby(["method_x", "temperature_x", "num_bags_x"]):
        one = found[f"{method} (temperature={temperature:g}) − its matched teacher"]
        (interval,) = (i for column, i in one.by_column.items() if column.value == n)
        assert interval.mean == pytest.approx(group["d"].mean()) and interval.count == 5


def test_differences_from_matched_teachers_come_first(controlled):
    kinds = [one.kind for one in table(controlled).all_differences]
    assert kinds.index(TO_MATCHED) < kinds.index(TO_TEACHER)
    lines = findings(table(controlled), controlled)
    told = [line for line in lines if "its matched teacher" in line or "its teacher" in line]
    assert told and "its matched teacher" in told[0] and NO_MATCHED_NOTE not in lines
    labels = [label for label, _ in table_lines(render(controlled))]
    assert labels.index("matched of none") == labels.index("*references*") + 1


def test_teachers_matched_to_two_students_are_told_apart_by_steps(controlled):
    """The keys that follow from the steps differ with them and would say less, though they come first in the rows."""
    one = controlled[controlled["stage"] == "matched"].assign(eval_every=117, min_steps=200, steps=350)
    other = one.assign(config_id="o" + one["config_id"], trial_id="o" + one["trial_id"], eval_every=167, steps=500)
    rest = controlled[controlled["stage"] != "matched"].assign(eval_every=100, min_steps=200, steps=200)
    both = pd.concat([rest, one, other], ignore_index=True)
    both.attrs = controlled.attrs
    names = [name for name, _ in table_lines(render(both)) if name.startswith("matched of none")]
    assert names == ["matched of none (steps=350)", "matched of none (steps=500)"]


def test_teachers_matched_to_two_students_are_told_by_these_where_steps_follow_n(controlled):
    """With a length in epochs a student's matched teacher has other steps at each n. It is one row all the same."""
    one = controlled[controlled["stage"] == "matched"]
    one = one.assign(steps=one["num_bags"] * 7)
    other = one.assign(config_id="o" + one["config_id"].str[1:], trial_id="o" + one["trial_id"], steps=one["steps"] + 9)
    rest = controlled[controlled["stage"] != "matched"].assign(steps=200)
    noisy = rest["student_method"] == "noisy"
    rest["matched_id"] = rest["matched_id"].mask(noisy, "o" + rest["matched_id"].str[1:])
    both = pd.concat([rest, one, other], ignore_index=True)
    both.attrs = controlled.attrs
    rows = {name: cells for name, cells in table_lines(render(both)) if name.startswith("matched of none")}
    assert set(rows) == {"matched of none (student=plain)", "matched of none (student=noisy)"}
    assert not any("–" in cell for cells in rows.values() for cell in cells)


def test_the_figure_of_pairs_has_both_the_matched_one_first(controlled):
    axis = draw_pairs(controlled).axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert len(names) == 16 and all(name.endswith("− matched") for name in names[::2])
    assert all(name.endswith("− its teacher") for name in names[1::2])
    rows = controlled[controlled["num_bags"] == 50].set_index(["config_id", "replicate"])["instance_auc"]
    students = controlled[(controlled["stage"] == "student") & (controlled["num_bags"] == 50)]
    expected = {}
    for (method, temperature), own in students.groupby(["method", "temperature"]):
        for key, other in (("matched", "matched_id"), ("its teacher", "teacher_id")):
            found = [
                one.instance_auc - rows[getattr(one, other), one.replicate]
                for one in own.itertuples() if (getattr(one, other), one.replicate) in rows.index
            ]  # fmt: skip
            expected[f"{method} (temperature={temperature:g}) − {key}"] = sorted(found)
    dots = [line for line in axis.get_lines() if line.get_alpha() is not None]
    for name, line in zip(names, dots, strict=True):
        np.testing.assert_allclose(sorted(line.get_xdata()), expected[name.replace("\n", " ")], atol=1e-9)


@pytest.fixture
def undistilled(controlled):
    """The rows with the same student without soft labels for each student of T = 1, a little worse."""
    students = controlled[(controlled["stage"] == "student") & (controlled["temperature"] == 1)]
    loss = np.random.default_rng(8).normal(0.01, 0.001, len(students))
    own = students.assign(
        config_id="w" + students["config_id"].str[1:], trial_id="w" + students["trial_id"].str[1:],
        stage="no_soft_labels", method="no_soft_labels of " + students["teacher_method"], student_method=None,
        matched_id=None, instance_auc=students["instance_auc"] - loss,
    )  # fmt: skip
    own = own.drop_duplicates(["method", "num_bags", "replicate"])
    by_task = own.set_index(["teacher_method", "num_bags", "replicate"])["config_id"]
    keys = [tuple(one) for one in controlled[["teacher_method", "num_bags", "replicate"]].to_numpy()]
    named = pd.Series([by_task.get(key) for key in keys], index=controlled.index)
    marked = controlled.assign(no_soft_labels_id=named.where(controlled["stage"] == "student"))
    made = pd.concat([marked, own], ignore_index=True)
    made.attrs = controlled.attrs
    return made


def test_a_student_is_paired_with_the_same_without_soft_labels(undistilled):
    layout = arrange(undistilled)
    (panel,) = layout.panels
    every = differences(layout, panel)
    found = [one for one in every if one.kind == TO_NO_SOFT_LABELS]
    kinds = list(dict.fromkeys(one.kind for one in every))
    assert kinds[-3:] == [TO_MATCHED, TO_NO_SOFT_LABELS, TO_TEACHER]
    students = undistilled[undistilled["stage"] == "student"]
    assert len(found) == students.groupby(["method", "temperature"]).ngroups > 1
    both = students.merge(undistilled, left_on=["no_soft_labels_id", "replicate"], right_on=["config_id", "replicate"])
    both["d"] = both["instance_auc_x"] - both["instance_auc_y"]
    by_text = {one.text: one for one in found}
    for (method, temperature, n), group in both.groupby(["method_x", "temperature_x", "num_bags_x"]):
        one = by_text[f"{method} (temperature={temperature:g}) − the same without soft labels"]
        (interval,) = (i for column, i in one.by_column.items() if column.value == n)
        assert interval.mean == pytest.approx(group["d"].mean()) and interval.count == len(group)
    said = " ".join(render(undistilled).split())
    assert "(“the same without soft labels”): the student from the same weights of its teacher" in said
    assert "no_soft_labels of none" in said
    few = undistilled[(undistilled["num_bags"] == 50) & (undistilled["temperature"] != 4)]
    lines = findings(table(few), few)
    assert any("− the same without soft labels" in line and "after Holm" in line for line in lines)


def test_the_figure_of_pairs_has_the_same_without_soft_labels_between_the_teachers(undistilled):
    figure = draw_pairs(undistilled)
    names = [" ".join(label.get_text().split()) for label in figure.axes[0].get_yticklabels()]
    assert len(names) == 24 and all(name.endswith("− without soft labels") for name in names[1::3])
    said = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert "without soft labels: the student from the same weights" in said


def test_captions_say_what_training_saw(controlled):
    said = " ".join(render(controlled).split())
    assert "teachers 1,000 to 2,000, students 2,400 to 4,800, matched teachers 3,400 to 6,800." in said
    assert said.count("for as many instance visits as teacher and student together") == 1
    assert "(“its matched teacher”): the teacher trained anew" in said
    assert NO_MATCHED_NOTE not in said


def test_students_without_matched_teacher_are_said_to_be(distilled):
    assert NO_MATCHED_NOTE in " ".join(render(distilled).split())
    assert findings(table(distilled), distilled)[-1] == NO_MATCHED_NOTE
    untrained = distilled.assign(status=distilled["status"].mask(distilled["stage"] == "student", "missing"))
    untrained.attrs = distilled.attrs
    assert NO_MATCHED_NOTE not in " ".join(render(untrained).split())
    assert NO_MATCHED_NOTE not in findings(table(untrained), untrained)
    teachers = distilled[distilled["stage"] == "teacher"]
    assert NO_MATCHED_NOTE not in " ".join(render(teachers).split())
    assert NO_MATCHED_NOTE not in findings(table(teachers), teachers)
