"""Unlabelled bags in a study: who is another configuration by them, what is refused, what it costs, what rows say."""

import dataclasses

import pytest
from make_space import load_text
from make_trial_request import make_trial_request, train_kept_model

from d2l_study.data import MnistBags
from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, TeacherConfig
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.plan.cost import expected_visits, work, work_of
from d2l_study.study.plan.data_checks import check_data
from d2l_study.study.space.arm_checks import check_arms
from d2l_study.study.trial.trial import run_trial

DATA = "data: {num_bags: [50, 100], mean_bag_size: 10"
ARMS = """
teacher: {steps: 100, batch_bags: 2}
methods:
  none: {}
  vat: {teacher: {lambda_adv: 1.0}}
"""
STUDENTS = """
teacher: {steps: 100, batch_bags: 2}
student: {steps: 60, batch_bags: 4}
teachers:
  none: {}
  vat: {teacher: {lambda_adv: 1.0}}
methods: {student: {}}
references: [matched, pooled, no_teacher, bag_label]
"""


def planned(folder, data, arms):
    return configurations(load_text(folder, f"description: x\n{data}}}\n{arms}"), "sum")


def test_they_are_in_the_identity_of_what_reads_them_and_of_nothing_else(tmp_path):
    before, now = (planned(tmp_path, DATA + more, ARMS) for more in ("", ", unlabelled_bags: 1000"))
    assert [(c.config_id, c.label, c.values) for c in before if c.method == "none"] == [
        (c.config_id, c.label, c.values) for c in now if c.method == "none"
    ]
    vats = [[c for c in some if c.method == "vat"] for some in (before, now)]
    assert {c.config_id for c in vats[0]}.isdisjoint(c.config_id for c in vats[1])
    assert [[c.values["unlabelled_bags"] for c in some] for some in vats] == [[0, 0], [1000, 1000]]
    assert all(c.sections["data"].unlabelled_bags == (1000 if c.method == "vat" else 0) for c in now)


def test_students_share_what_their_teachers_do_not_read(tmp_path):
    before, now = (planned(tmp_path, DATA + more, STUDENTS) for more in ("", ", unlabelled_bags: 1000"))
    for one, other in zip(before, now, strict=True):
        assert (one.stage, one.method) == (other.stage, other.method)
        reads = "vat" in (one.method, one.teacher_method)
        assert (one.config_id != other.config_id) == reads, one.label
        assert other.values["unlabelled_bags"] == (1000 if reads else 0)


def test_a_student_may_read_what_its_teacher_does_not(tmp_path):
    asked = STUDENTS.replace("{student: {}}", "{student: {student: {unlabelled: true}}}")
    plain, before, now = (
        planned(tmp_path, DATA + more, arms)
        for more, arms in (("", STUDENTS), ("", asked), (", unlabelled_bags: 1000", asked))
    )
    assert [c.config_id for c in plain] == [c.config_id for c in before]  # there is nothing to read
    for one, other in zip(before, now, strict=True):
        of_vat = "vat" in (one.method, one.teacher_method)
        reads = of_vat or one.stage in ("student", "matched")  # the matched teacher is trained for as many visits
        assert (one.config_id != other.config_id) == reads, one.label
        assert (other.values["unlabelled_bags"] > 0) == (of_vat or one.stage == "student")
        if one.stage == "student":
            assert expected_visits(other) == pytest.approx(2 * expected_visits(one))
            assert work_of(other.values, stage="student").training == 2 * work_of(one.values, stage="student").training
        if one.stage == "matched":
            assert other.sections["teacher"].steps == 100 + 60 * 8 // (4 if of_vat else 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{DATA}, unlabelled_bags: [0, 1000]}}{ARMS}",
         "methods.none: data.unlabelled_bags 0 and 1000 are one configuration: unlabelled_bags does nothing under "
         "lambda_adv 0; leave one of them out; a key that acts in other arms is set there"),
        (f"{DATA}}}\nmethods: {{vat: {{teacher: {{lambda_adv: 1, unlabelled_batch: [null, 8]}}}}}}",
         "unlabelled_batch does nothing under unlabelled_bags 0"),
        (f"{DATA}, unlabelled_bags: 9}}\nmethods: {{a: {{teacher: {{lambda_adv: 1, unlabelled_batch: [null, 1]}}}}}}",
         "unlabelled_batch does nothing under batch_bags 1"),
        (f"{DATA}}}\nstudent: {{steps: 50}}\nmethods: {{a: {{student: {{unlabelled: [false, true]}}}}}}",
         "unlabelled does nothing under unlabelled_bags 0"),
        (f"{DATA}, unlabelled_bags: [0, 9]}}\nstudent: {{steps: 50}}\nmethods: {{a: {{}}}}",
         "unlabelled_bags does nothing under lambda_adv 0 and unlabelled false"),
        (f"{DATA}, unlabelled_bags: [0, 9]}}\nstudent: {{steps: 50}}\n"
         "methods: {a: {}, more: {student: {unlabelled: true}}}",
         "leave one of them out; or let every arm read unlabelled bags .student.unlabelled: true, or teachers"),
        (f"{DATA}}}\nsearch: {{trials: 4}}\nteacher: {{lambda_adv: 1, learning_rate: {{low: 1e-4, high: 1e-3}}}}\n"
         "methods: {vat: {teacher: {unlabelled_batch: {low: 1, high: 9}}}}",
         "unlabelled_batch: a distribution that does nothing under unlabelled_bags 0"),
    ],
)  # fmt: skip
def test_an_axis_that_cannot_act_is_refused(tmp_path, text, message):
    space = load_text(tmp_path, f"description: x\n{text}")
    with pytest.raises(UserError, match=message):
        check_arms(space)


def test_an_arm_may_have_them_as_an_axis(tmp_path):
    text = f"description: x\n{DATA}}}\nmethods: {{none: {{}}, vat: {{teacher: {{lambda_adv: 1}}, "
    space = load_text(tmp_path, text + "data: {unlabelled_bags: [0, 200]}}}")
    check_arms(space)
    labels = [c.label for c in configurations(space, "sum") if c.method == "vat"]
    assert labels == [f"vat n={n} m={m}" for n in (50, 100) for m in (0, 200)]


def test_costs_visits_and_the_matched_teacher_count_them(tmp_path):
    before, now = (planned(tmp_path, DATA + more, STUDENTS) for more in ("", ", unlabelled_bags: 1000"))
    for one, other in zip(before, now, strict=True):
        if one.method == "vat":
            visits = [expected_visits(one), expected_visits(other)]
            assert visits == pytest.approx([100 * 2 * 10, 100 * 4 * 10], rel=1e-4)
            # a labelled bag: 3 plain passes and 4 of R_adv; an unlabelled one: its clean pass and 4
            assert [work_of(c.values).training for c in (one, other)] == [100 * 2 * 10 * 7, 100 * 2 * 10 * (7 + 5)]
            assert work(other) > work(one)
        if one.stage == "matched":
            teacher_step, student_bags = (4 if one.teacher_method == "vat" else 2), 60 * 4
            assert one.sections["teacher"].steps == 100 + student_bags // 2
            assert other.sections["teacher"].steps == 100 + student_bags // teacher_step
    power = work_of({**now[0].values, "lambda_adv": 1.0, "direction": "power", "power_iterations": 2,
                     "unlabelled_bags": 9, "unlabelled_batch": 5}, stage="teacher")  # fmt: skip
    assert power.training == power.steps * 10 * (2 * (3 + 5 + 2) + 5 * (1 + 5 + 2))
    old = {key: value for key, value in before[0].values.items() if not key.startswith("unlabelled")}
    assert work_of(old) == work_of({**old, "unlabelled_bags": float("nan")}) == work_of(before[0].values)


def test_too_many_of_given_bags_are_refused_before_work_starts(tmp_path):
    text = (f"description: x\ndata: {{dataset: features, path: musk1, num_bags: 40, unlabelled_bags: MANY}}{ARMS}"
            "replicates: 1\n")  # fmt: skip
    for many, message in (("40", "data.num_bags 40 leaves 3. over; expected at most 7. in both"), ("20", "")):
        space, lines = load_text(tmp_path, text.replace("MANY", many)), []
        found = configurations(space, "sum")
        if message:
            with pytest.raises(UserError, match=message):
                check_data(found, space, lines, new=True)
            continue
        check_data(found, space, lines, new=True)
        assert [line for line in lines if "unlabelled: 20 bags" in line and "positive" not in line]


def test_a_run_says_what_it_saw_and_counts_no_label_of_theirs(tmp_path):
    request = make_trial_request(tmp_path, replicates=(0,), lambda_adv=1.0, unlabelled_batch=3)
    rows = []
    for m in (0, 8):
        data = {**request.sections["data"], "unlabelled_bags": m}
        own = dataclasses.replace(request, sections={**request.sections, "data": data}, config_id=f"{m:x}{'c' * 19}")
        assert run_trial(own) == {0: "done"}
        rows.append(StudyFolder(LocalStorage(tmp_path), "s").ledger.read(own.config_id, 0)["row"])
    assert rows[0]["labels_used"] == rows[1]["labels_used"] == 6 + 20
    assert rows[0]["instance_visits"] < rows[1]["instance_visits"]
    assert rows[0]["val_bag_nll"] != rows[1]["val_bag_nll"]


def test_a_student_reads_its_stored_teachers_labels_of_unlabelled_bags(tmp_path):
    data = MnistBags(num_bags=6, mean_bag_size=3, test_bags=20, unlabelled_bags=8).resolved()
    teacher = TeacherConfig(steps=6, eval_every=3, feature_width=16)
    student = StudentConfig(steps=6, eval_every=3, feature_width=16)
    blind = dataclasses.replace(data, unlabelled_bags=0)  # as the plan has it of a teacher without R_adv
    train_kept_model(tmp_path, "a" * 20, blind, teacher=teacher)
    rows = []
    for number, unlabelled in enumerate((False, True)):
        own = dataclasses.replace(student, unlabelled=unlabelled)
        config = f"{number}{'b' * 19}"
        train_kept_model(tmp_path, config, data, ("a" * 20,), teacher=teacher, student=own)
        rows.append(StudyFolder(LocalStorage(tmp_path), "s").ledger.read(config, 0)["row"])
    assert rows[1]["instance_visits"] > rows[0]["instance_visits"]
    assert rows[0]["labels_used"] == rows[1]["labels_used"] == 6 + 20
    assert rows[0]["val_distill_loss"] != rows[1]["val_distill_loss"]
