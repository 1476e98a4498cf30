"""Students against the controls that are rows of their own, and tables whose plain arm has another name."""

import numpy as np
import pandas as pd
import pytest

from analysis.cells.arrange import arrange
from analysis.cells.differences import TO_NO_TEACHER, TO_POOLED, TO_SMOOTHED, plain_arm
from analysis.figures.paired import draw_pairs
from analysis.report.findings import findings
from analysis.report.report import make_report
from analysis.rows.stages import default_metric
from analysis.statistics.paired_tests import holm
from analysis.tables.comparison import compare
from analysis.tables.study_table import render, table
from d2l_study.errors import UserError


def with_reference(rows, stage, gain, **own):
    """The rows with one reference row for each teacher."""
    made = rows[rows["stage"] == "teacher"].copy()
    made = made.assign(
        config_id=stage[0] + made["config_id"].str[1:], trial_id=stage[0] + made["trial_id"].str[1:], stage=stage,
        teacher_id=made["config_id"], teacher_method=made["method"], method=f"{stage} of " + made["method"],
        instance_auc=made["instance_auc"] + gain,
    ).assign(**own)  # fmt: skip
    found = pd.concat([rows, made], ignore_index=True)
    found.attrs = rows.attrs
    return found


@pytest.fixture
def controlled(distilled):
    """The rows with smoothed and pooled teachers, and one student without teacher for each n."""
    rows = with_reference(with_reference(distilled, "smoothed", 0.002), "pooled", 0.0)
    alone = rows[(rows["stage"] == "teacher") & (rows["method"] == "none")]
    noise = np.random.default_rng(3).normal(0, 0.003, len(alone))
    alone = alone.assign(stage="no_teacher", method="no_teacher", config_id="n" + alone["config_id"].str[1:],
                         instance_auc=alone["instance_auc"] + noise)  # fmt: skip
    made = pd.concat([rows, alone], ignore_index=True)
    made.attrs = rows.attrs
    return made


@pytest.mark.parametrize("kind, stage, text", [
    (TO_SMOOTHED, "smoothed", "its smoothed teacher"), (TO_NO_TEACHER, "no_teacher", "no_teacher"),
])  # fmt: skip
def test_students_are_paired_with_their_controls(controlled, kind, stage, text):
    found = [one for one in table(controlled).all_differences if one.kind == kind]
    students = controlled[controlled["stage"] == "student"]
    assert len(found) == students.groupby(["method", "temperature"]).ngroups > 1
    control = controlled[controlled["stage"] == stage]
    keys = ["num_bags", "replicate"] + (["teacher_id"] if stage == "smoothed" else [])
    both = students.merge(control, on=keys)
    both["d"] = both["instance_auc_x"] - both["instance_auc_y"]
    by_text = {one.text: one for one in found}
    for (method, temperature, n), group in both.groupby(["method_x", "temperature_x", "num_bags"]):
        one = by_text[f"{method} (temperature={temperature:g}) − {text}"]
        (interval,) = (i for column, i in one.by_column.items() if column.value == n)
        assert interval.mean == pytest.approx(group["d"].mean()) and interval.count == len(group) == 5


def test_of_bags_a_smoothed_teacher_is_its_teacher_and_of_instances_a_pooled_one(controlled):
    found = table(controlled, "bag_auc").all_differences
    kinds = {one.kind for one in found}
    assert TO_SMOOTHED not in kinds and TO_NO_TEACHER in kinds
    assert TO_POOLED not in {one.kind for one in table(controlled).all_differences}
    one = next(one for one in found if one.text == "none → plain (temperature=1) − its pooled teacher")
    student = controlled[(controlled["method"] == "none → plain") & (controlled["temperature"] == 1)]
    both = student.merge(controlled[controlled["method"] == "pooled of none"], on=["num_bags", "replicate"])
    for column, interval in one.by_column.items():
        mine = both[both["num_bags"] == column.value]
        assert interval.mean == pytest.approx((mine["bag_auc_x"] - mine["bag_auc_y"]).mean())


def test_several_smoothed_teachers_are_no_control(controlled):
    again = with_reference(controlled, "smoothed", 0.004, config_id="again")
    again.loc[again["config_id"] == "again", "neighbours"] = 8
    again.attrs = {**controlled.attrs, "varied": [*controlled.attrs["varied"], "neighbours"]}
    again = again[(again["config_id"] != "again") | (again["num_bags"] == 50)]
    again.attrs = {**controlled.attrs, "varied": [*controlled.attrs["varied"], "neighbours"]}
    found = [one for one in table(again).all_differences if one.kind == TO_SMOOTHED]
    assert all(column.value == 100 for one in found for column in one.by_column)


@pytest.mark.parametrize("kind, stage", [(TO_SMOOTHED, "smoothed"), (TO_NO_TEACHER, "no_teacher")])
def test_of_several_rows_of_a_kind_each_student_has_the_one_that_its_rows_name(controlled, kind, stage):
    """Here all students name the first of two, which differ in a key, for 50 bags; and none of them for 100."""
    other = controlled[(controlled["stage"] == stage) & (controlled["num_bags"] == 50)].copy()
    other["config_id"], other["neighbours"] = "o" + other["config_id"].str[1:], 8
    other["instance_auc"] -= 0.1
    rows = pd.concat([controlled, other], ignore_index=True)
    first = controlled[controlled["stage"] == stage].drop_duplicates(["num_bags", "teacher_id"])
    keys = ["num_bags"] + (["teacher_id"] if stage == "smoothed" else [])
    own = rows.merge(first.set_index(keys)["config_id"].rename("own"), left_on=keys, right_index=True, how="left")[
        "own"
    ]
    rows[f"{stage}_id"] = own.where((rows["stage"] == "student") & (rows["num_bags"] == 50))
    rows.attrs = {**controlled.attrs, "varied": [*controlled.attrs["varied"], "neighbours"]}
    means = [
        {(one.text, column.value): i.mean for one in table(made).all_differences if one.kind == kind
         for column, i in one.by_column.items()}
        for made in (rows, controlled)
    ]  # fmt: skip
    assert means[0] == means[1] and {n for _, n in means[0]} == {50, 100}
    unnamed = rows.drop(columns=f"{stage}_id")
    unnamed.attrs = rows.attrs
    columns = {c.value for d in table(unnamed).all_differences if d.kind == kind for c in d.by_column}
    assert columns == {100}  # nothing tells which of the two


def test_scores_that_are_those_of_the_teacher_are_not_compared(controlled):
    compared = compare(controlled, {"method": "none"})
    assert {one.row.text.split(" of ")[0] for one in compared.found} >= {"vat", "smoothed"}
    assert not [one for one in compared.found if one.row.text.startswith("pooled")]
    bags = compare(controlled, {"method": "none"}, "bag_auc")
    assert [one for one in bags.found if one.row.text.startswith("pooled")]
    assert not [one for one in bags.found if one.row.text.startswith("smoothed")]


@pytest.mark.slow
def test_controls_are_compared_with_their_p_values(controlled):
    compared = compare(controlled, controls=True)
    by_text = {f"{one.row.text} − {one.baseline.text}": one for one in compared.found if one.column.value == 50}
    one = by_text["none → plain (temperature=1) − smoothed of none"]
    assert one.difference.count == 5 and {"none", "no_teacher"} <= {name.rpartition(" − ")[2] for name in by_text}
    corrected = holm([one.tests[0].p for one in compared.found])
    assert [one.p_holm[0] for one in compared.found] == pytest.approx(corrected)
    page = make_report(controlled)
    assert "compared with their teachers and controls" in page and "compared with method=none" in page
    lines = findings(table(controlled), controlled, compare(controlled))
    told = [line for line in lines if "its smoothed teacher" in line or "no_teacher" in line]
    assert told and all("told apart (p " in line for line in told)
    with pytest.raises(UserError, match="--controls: not beside --baseline"):
        compare(controlled, {"method": "none"}, controls=True)
    teachers = controlled[controlled["stage"] == "teacher"]
    with pytest.raises(UserError, match="--controls: no student of study"):
        compare(teachers, controls=True)


def test_the_figure_of_pairs_has_them(controlled):
    figure = draw_pairs(controlled)
    names = [" ".join(label.get_text().split()) for label in figure.axes[0].get_yticklabels()]
    assert {name.rpartition(" − ")[2] for name in names} == {"smoothed", "no_teacher", "its teacher"}


def test_the_first_arm_is_the_plain_one_where_none_is_called_so(distilled):
    rows = distilled[distilled["stage"] == "teacher"]
    renamed = rows.assign(method=rows["method"].replace({"none": "plain"}))
    renamed.attrs = rows.attrs = distilled.attrs
    assert plain_arm(arrange(rows)) == "none" and plain_arm(arrange(renamed)) == "plain"
    texts = [one.text for one in table(renamed).all_differences]
    assert texts and texts == [one.text.replace("none", "plain") for one in table(rows).all_differences]
    assert "− plain" in render(renamed)
    assert [one.difference.mean for one in compare(renamed).found] == [
        one.difference.mean for one in compare(rows).found
    ]
    alone = renamed[renamed["method"] == "plain"]
    assert plain_arm(arrange(alone)) is None and not table(alone).all_differences


def test_students_without_instance_labels_are_about_bags(distilled):
    unlabelled = distilled.assign(instance_auc=np.nan)
    unlabelled.attrs = distilled.attrs
    assert default_metric(unlabelled) == "bag_auc" and default_metric(distilled) == "instance_auc"
    begun = unlabelled.assign(status="missing")
    assert default_metric(begun) == "instance_auc"
    assert all("bag AUC" in line for line in findings(table(unlabelled), unlabelled) if "±" in line)
    draw_pairs(unlabelled)
    assert compare(unlabelled).found


def test_validation_columns_are_named_so(distilled):
    said = render(distilled, ["val_bag_auc", "bag_auc"], column_key="metric")
    heads = [cell.strip() for cell in next(line for line in said.splitlines() if line.startswith("|")).split("|")]
    assert heads[2:4] == ["validation bag AUC", "AUC"] or heads[2:4] == ["validation bag AUC", "bag AUC"]


def test_a_student_of_several_teachers_stands_beside_its_first_one_pooled(controlled):
    """An ensemble and a cross-fitted student name all of their teachers, the first of which reference rows read."""
    several = controlled.copy()
    of_students = several["stage"] == "student"
    several.loc[of_students, "teacher_id"] += "," + "ab" * 10
    found, expected = (
        {one.text: {str(column): i.mean for column, i in one.by_column.items()}
         for one in table(rows, "bag_auc").all_differences if one.kind == TO_POOLED}
        for rows in (several, controlled)
    )  # fmt: skip
    assert found == expected and len(expected) > 1
