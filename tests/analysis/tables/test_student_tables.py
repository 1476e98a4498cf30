"""Studies of students: who stands where, who is compared with whom, and that the oracle is never taken for a method."""

import csv
import io
import re

import numpy as np
import pytest
from make_study import make_study
from students import student_minus_teacher
from table_lines import table_lines

from analysis.cells.arrange import arrange
from analysis.cells.differences import TO_BASELINE, TO_TEACHER, differences
from analysis.statistics.intervals import mean_difference
from analysis.tables.study_table import render


def test_a_study_with_students_is_about_instances(distilled, tmp_path):
    assert render(distilled).startswith("**distilled: instance AUC")
    assert render(distilled, "bag_auc").startswith("**distilled: bag AUC")
    assert render(distilled[distilled["stage"] != "student"]).startswith("**distilled: bag AUC")
    assert render(make_study(tmp_path, num_bags=(50,)).rows()).startswith("**made: bag AUC")


def test_teachers_students_references_and_differences_stand_in_this_order(distilled):
    labels = [label for label, _ in table_lines(render(distilled))]
    assert labels[:3] == ["*teachers*", "none", "vat"]
    assert labels[3:6] == ["*students*", "none → plain (temperature=1)", "none → plain (temperature=4)"]
    at = labels.index("*references*")
    references = ["bag_label", "attention of none", "attention of vat", "oracle †"]
    assert labels[at + 1 : at + 7] == [*references, "*paired differences*", "vat − none"]
    assert labels[at + 7] == "none → plain (temperature=1) − its teacher"
    assert len(labels) == at + 7 + 8
    shuffled = [label for label, _ in table_lines(render(distilled.sample(frac=1, random_state=0)))]
    assert [shuffled.index(g) for g in ("*teachers*", "*students*", "*references*")] == [0, 3, at]


def test_a_student_is_paired_with_its_own_teacher_by_replicate(distilled):
    table = dict(table_lines(render(distilled)))
    for teacher in ("none", "vat"):
        for temperature in (1.0, 4.0):
            cells = table[f"{teacher} → noisy (temperature={temperature:g}) − its teacher"]
            for cell, n in zip(cells, (50, 100), strict=True):
                wanted = mean_difference(student_minus_teacher(distilled, f"{teacher} → noisy", n, temperature))
                mean, half, count = re.fullmatch(r"([+−][\d.]+) ± ([\d.]+) \((\d)\)", cell).groups()
                assert float(mean.replace("−", "-")) == pytest.approx(wanted.mean, abs=6e-4)
                assert float(half) == pytest.approx(wanted.half_width, abs=6e-4)
                assert count == "5"


def test_the_teacher_is_found_by_its_id_and_not_by_a_name(distilled):
    teachers = distilled[distilled["stage"] == "teacher"].set_index(["method", "num_bags"])["config_id"]
    swapped = distilled.copy()
    students = (distilled["method"] == "vat → noisy") & (distilled["num_bags"] == 50)
    swapped.loc[students, "teacher_id"] = teachers["none", 50].iloc[0]
    swapped.attrs = distilled.attrs
    name = "vat → noisy (temperature=1) − its teacher"
    before, after = (dict(table_lines(render(rows)))[name] for rows in (distilled, swapped))
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert float(after[0].split()[0]) == pytest.approx(
        student_minus_teacher(swapped, "vat → noisy", 50, 1.0).mean(), abs=6e-4
    )


def test_a_student_of_an_ensemble_is_paired_with_its_first_teacher(distilled):
    rows = distilled.copy()
    rows.attrs = distilled.attrs
    students = rows["teacher_id"].notna()
    rows.loc[students, "teacher_id"] = rows.loc[students, "teacher_id"] + "," + "f" * 20
    assert "its teacher" in render(distilled) and render(rows) == render(distilled)


def test_pairs_leave_out_replicates_that_one_side_lacks(faulty):
    layout = arrange(faulty)
    (panel,) = layout.panels
    found = {one.text: one for one in differences(layout, panel)}
    for text, count in (("none → plain − its teacher", 3), ("none → noisy − its teacher", 4)):
        for column, interval in found[text].by_column.items():
            values = student_minus_teacher(faulty, text.removesuffix(" − its teacher"), column.value)
            assert interval.count == count == len(values)
            assert interval.mean == pytest.approx(values.mean())
    assert set(found) == {"none → plain − its teacher", "none → noisy − its teacher"}


def test_students_of_a_failed_teacher_were_not_run(faulty):
    text = render(faulty)
    table = dict(table_lines(text))
    assert table["vat"] == table["oracle †"] == ["failed"] * 2
    assert table["vat → plain"] == table["vat → noisy"] == table["attention of vat"] == ["not run"] * 2
    assert all(cell.endswith("(3 of 5)") for cell in table["none → plain"])
    assert "Not run: its teacher failed." in " ".join(text.split())
    assert r"\emph{not run}" in render(faulty, format="latex")


def test_a_metric_that_a_stage_does_not_have_is_a_dash(distilled):
    text = render(distilled, "bag_auc")
    table = dict(table_lines(text))
    assert table["attention of vat"] == ["–", "–"]
    assert "attention has no bag AUC." in " ".join(text.split())
    assert table["bag_label"][0] != "–"
    loss = render(distilled, "val_distill_loss")
    assert dict(table_lines(loss))["vat"] == ["–", "–"]
    assert "its teacher" not in loss


@pytest.mark.parametrize("turned", [False, True])
def test_the_oracle_is_marked_everywhere_and_never_the_best(distilled, turned):
    axes = {"row_key": "num_bags", "column_key": "method", "panel_key": None} if turned else {}
    assert distilled.loc[distilled["stage"] == "oracle", "instance_auc"].min() > distilled.loc[
        distilled["stage"] != "oracle", "instance_auc"].mean()  # fmt: skip
    text = render(distilled, **axes)
    assert text.count("oracle †") >= 1
    assert len(re.findall(r"\*\*0\.", text)) == 2
    for label, cells in table_lines(text):
        assert "†" not in label or not any("**" in cell for cell in cells)
    assert "† aside" in " ".join(text.split())
    latex = render(distilled, format="latex", **axes)
    assert latex.isascii()
    assert r"oracle $\dagger$" in latex
    assert not re.search(r"dagger.*textbf", latex[latex.index("midrule") :])
    table = list(csv.DictReader(io.StringIO(render(distilled, format="csv", **axes))))
    assert {t["stage"] for t in table if t["method"] == "oracle"} == {"oracle"}
    if not turned:
        assert {t["row"] for t in table if t["method"] == "oracle"} == {"oracle †"}


def test_bag_labels_may_be_the_best_since_they_saw_no_instance_label(distilled):
    rows = distilled.copy()
    rows.loc[rows["stage"] == "bag_label", "instance_auc"] = np.linspace(0.996, 0.998, 10)
    rows.attrs = distilled.attrs
    assert all(cell.startswith("**") for cell in dict(table_lines(render(rows)))["bag_label"])


def test_the_long_form_names_stages_arms_and_kinds(distilled):
    table = list(csv.DictReader(io.StringIO(render(distilled, format="csv"))))
    kinds = {kind: [t for t in table if t["kind"] == kind] for kind in ("value", TO_TEACHER, TO_BASELINE)}
    assert [len(found) for found in kinds.values()] == [2 * (2 + 8 + 4), 2 * 8, 2]
    assert sum(len(found) for found in kinds.values()) == len(table)
    for line in kinds[TO_TEACHER]:
        assert (line["stage"], line["baseline"]) == ("student", "its teacher")
        assert line["method"] == f"{line['teacher_method']} → {line['student_method']}"
        values = student_minus_teacher(distilled, line["method"], int(line["num_bags"]), float(line["temperature"]))
        assert float(line["mean"]) == pytest.approx(values.mean())
        assert (line["count"], line["planned"], line["status"]) == ("5", "5", "done")
    assert {t["baseline"] for t in kinds[TO_BASELINE]} == {"none"}
    assert {t["teacher_method"] for t in table if t["stage"] == "attention"} == {"none", "vat"}


def test_a_difference_far_smaller_than_the_spread_keeps_its_digits(distilled):
    rows = distilled.copy()
    teachers = distilled.set_index(["config_id", "replicate"])["instance_auc"]
    for i in rows.index[rows["stage"] == "student"]:
        own = teachers[rows.at[i, "teacher_id"], rows.at[i, "replicate"]]
        rows.at[i, "instance_auc"] = own + 0.0004 + 0.0001 * (rows.at[i, "replicate"] % 2)
    rows.attrs = distilled.attrs
    assert dict(table_lines(render(rows)))["vat → plain (temperature=1) − its teacher"][0] == "+0.0004 ± 0.0001 (5)"
