"""A study of students end to end: teachers made once, reused by the next study, linked, and the students used.

Trained in this process. The notebook of a cohort, which runs with the tests, trains students of teachers with Ray.
"""

import numpy as np
import pandas as pd
import pytest
from empty_store import copied_store
from few_digits import digits
from study_runs import children, run, run_here
from whole_root import command as command_here

import analysis
from d2l_study import cli
from d2l_study.data import MnistBags
from d2l_study.study.ledger import records
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage

SPACE = """
description: students of two teachers, in a few seconds
data: {num_bags: 6, mean_bag_size: 3, test_bags: 50, root: DIGITS, verify: false}
teacher: {steps: 10, eval_every: 5, feature_width: 16, attention_width: 8}
student: {steps: 10, eval_every: 5, feature_width: 16}
teachers:
  none: {}
  broken: {teacher: {learning_rate: 1e30}}
methods:
  plain: {student: {temperature: [1, 2]}}
references: [bag_label, attention, oracle]
keep_weights: all
replicates: 2
base_seed: 3
""".replace("DIGITS", str(digits()))


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("students")
    (folder / "first.yaml").write_text(SPACE)
    (folder / "runs").mkdir()
    copied_store(folder / "runs", tmp_path_factory)
    return folder, run_here(folder, space="first.yaml", code=1)  # the broken teacher


def commits(folder):
    return {p: p.stat().st_mtime_ns for p in (folder / "runs" / "results").glob("*/*/*/commit.json")}


def test_students_learn_from_their_teachers_and_a_broken_one_has_none(few):
    folder, out = few
    rows = analysis.load("first", folder / "runs")
    by_stage = rows.groupby("stage")["status"].value_counts().to_dict()
    assert by_stage == {
        ("attention", "done"): 2, ("attention", "failed"): 2, ("bag_label", "done"): 2, ("oracle", "done"): 2,
        ("student", "done"): 4, ("student", "failed"): 4, ("teacher", "done"): 2, ("teacher", "failed"): 2,
    }  # fmt: skip
    teachers = rows[rows["stage"] == "teacher"].set_index("config_id")["method"].to_dict()
    students = rows[rows["stage"] == "student"]
    assert (students["teacher_id"].map(teachers) == students["teacher_method"]).all()
    causes = students[students["status"] == "failed"]["cause"]
    assert causes.str.startswith("its teacher").all() and causes.str.contains("failed").all()
    line = next(part for part in out.splitlines() if part.startswith("| broken → plain (temperature=1) "))
    assert "not run" in line
    assert ": 2 of 2 failed" in out and "8 runs failed" in out
    assert "training loss became" in out or "no longer finite" in out
    assert "failed" in next(part for part in out.splitlines() if part.startswith("| broken "))
    assert "none → plain (temperature=1) − its teacher" in out


def test_the_next_step_is_a_figure_that_can_be_drawn(few, tmp_path, tmp_path_factory):
    """Of students as soon as one is done."""
    assert "figure first" in few[1] and "--kind pairs" in few[1]
    (tmp_path / "first.yaml").write_text(SPACE)
    (tmp_path / "runs").mkdir()
    copied_store(tmp_path / "runs", tmp_path_factory)
    said = run_here(tmp_path, "--limit", 1, space="first.yaml")
    assert set(analysis.load("first", tmp_path / "runs").query("status == 'done'")["stage"]) == {"teacher"}
    assert "figure first" in said and "--kind pairs" not in said


def test_each_students_page_leads_to_its_teachers(few):
    folder, _ = few
    mine, runs = children(folder, "first")
    by_config = {r.data.tags["d2l.config_id"]: r for r in mine}
    students = [r for r in mine if r.data.params["stage"] == "student"]
    assert len(students) == 4
    for student in students:
        teacher = by_config[student.data.tags["d2l.teacher_id"]]
        assert student.data.tags["d2l.teacher_run"] == teacher.info.run_id
        assert teacher.info.run_id in student.data.tags["mlflow.note.content"]
    assert "RUNNING" not in {r.info.status for r in runs}


def test_other_student_axes_train_no_teacher_again(few):
    folder, _ = few
    before = commits(folder)
    text = SPACE.replace("  broken: {teacher: {learning_rate: 1e30}}\n", "")
    (folder / "second.yaml").write_text(text.replace("temperature: [1, 2]", "temperature: [3, 4], alpha: 0.5"))
    out = run_here(folder, space="second.yaml")
    # of 1 teacher, 2 students, attention, and the two trained references, only the students are new
    assert "6 trials × 2 replicates = 12 runs: 8 there already, 4 to run now" in out
    after = commits(folder)
    assert all(after[path] == at for path, at in before.items())
    assert len(after) == len(before) + 4


@pytest.mark.ray
@pytest.mark.soak
def test_a_teacher_without_weights_is_made_again_for_its_students(tmp_path):
    teacher = (
        SPACE[: SPACE.index("student:")] + "methods: {none: {}}\nreplicates: 2\nbase_seed: 3\nkeep_weights: none\n"
    )
    (tmp_path / "few.yaml").write_text(teacher)
    run(tmp_path)
    first = analysis.load("few", tmp_path / "runs").set_index("replicate")["bag_auc"]
    text = SPACE.replace("  broken: {teacher: {learning_rate: 1e30}}\n", "").replace("temperature: [1, 2]", "alpha: 1")
    (tmp_path / "students.yaml").write_text(text.replace("references: [bag_label, attention, oracle]\n", ""))
    assert "4 runs: 0 there already, 4 to run now" in run(tmp_path, space="students.yaml")
    rows = analysis.load("students", tmp_path / "runs")
    assert (rows["status"] == "done").all()
    teachers = rows[rows["stage"] == "teacher"].set_index("replicate")
    pd.testing.assert_series_equal(first, teachers["bag_auc"])  # the first record stays
    ledger = Ledger(LocalStorage(tmp_path / "runs"))
    for replicate, row in teachers.iterrows():
        assert ledger.has_weights(row["config_id"], replicate)
        (added,) = (tmp_path / "runs" / ledger.run_key(row["config_id"], replicate)).glob("added-*.json")
        assert records.decode(added.read_bytes())["row"]["bag_auc"] == row["bag_auc"]  # made again, the same


def test_a_stored_student_labels_images(few):
    folder, _ = few
    rows = analysis.load("first", folder / "runs")
    student = rows[(rows["stage"] == "student") & (rows["status"] == "done")].iloc[0]
    images = MnistBags().load_pool().instances
    np.save(folder / "digits.npy", np.asarray(images[60_000:60_050, 0]))
    said = command_here(
        cli.main, "label", "--run", student["trial_id"], folder / "digits.npy", "--out", folder / "labels",
        "--root", folder / "runs", "--replicate", int(student["replicate"]),
    )  # fmt: skip
    assert said.code == 0, said.err
    scores = pd.read_parquet(folder / "labels" / "scores.parquet")
    kept = analysis.load_predictions(
        "first", folder / "runs", split="test", level="instance",
        config_id=student["config_id"], replicate=student["replicate"],
    )  # fmt: skip
    kept = kept.sort_values("index")["logit"].to_numpy()[:50]
    np.testing.assert_allclose(scores["logit"], kept, atol=1e-4)
