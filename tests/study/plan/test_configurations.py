"""A space of students: each teacher once, students and references with the right origin, ids that say so."""

import pytest

from d2l_study.errors import UserError
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.space.load import load_space

SPACE = """
description: students
data: {num_bags: [50, 100]}
teacher: {steps: 100}
student: {steps: 50, temperature: [1, 2]}
teachers:
  none: {}
  vat: {teacher: {lambda_adv: 1.0}}
methods:
  plain: {student: {alpha: 0.0}}
  noisy: {student: {dropout: 0.5, alpha: [0.5, 1.0]}}
references: [bag_label, attention, oracle]
"""


@pytest.fixture
def plan(tmp_path):
    def make(text=SPACE, overrides=()):
        (tmp_path / "s.yaml").write_text(text)
        return configurations(load_space(tmp_path / "s.yaml", overrides), "sum")

    return make


def by_stage(found):
    stages = {}
    for c in found:
        stages.setdefault(c.stage, []).append(c)
    return stages


def test_forty_students_have_four_teachers(plan):
    stages = by_stage(plan())
    assert {stage: len(found) for stage, found in stages.items()} == {
        "teacher": 4, "student": 2 * 2 * 2 * 3, "bag_label": 2, "attention": 4, "oracle": 2,
    }  # fmt: skip
    assert list(stages) == ["teacher", "student", "bag_label", "attention", "oracle"]
    teachers = {c.config_id: c for c in stages["teacher"]}
    assert all(c.teaches for c in stages["teacher"])
    for c in stages["student"] + stages["attention"]:
        (teacher,) = (teachers[t] for t in c.teachers)
        assert teacher.method == c.teacher_method
        assert teacher.values["num_bags"] == c.values["num_bags"]
    assert {c.method for c in stages["student"]} == {"none → plain", "none → noisy", "vat → plain", "vat → noisy"}


def test_a_teacher_is_that_of_a_study_of_teachers(plan, tmp_path):
    ids = {c.config_id for c in by_stage(plan())["teacher"]}
    (tmp_path / "t.yaml").write_text(
        "description: teachers\ndata: {num_bags: [50, 100]}\nteacher: {steps: 100}\n"
        "methods: {none: {}, vat: {teacher: {lambda_adv: 1.0}}}\n"
    )
    assert {c.config_id for c in configurations(load_space(tmp_path / "t.yaml"), "sum")} == ids


def test_other_student_axes_ask_for_the_same_teachers(plan):
    first, second = (by_stage(plan(overrides=o)) for o in ([], ["student.temperature=[4, 8]"]))
    assert {c.config_id for c in first["teacher"]} == {c.config_id for c in second["teacher"]}
    assert not {c.config_id for c in first["student"]} & {c.config_id for c in second["student"]}
    # T means nothing without a teacher, so the references stay too
    assert {c.config_id for c in first["oracle"]} == {c.config_id for c in second["oracle"]}


def test_an_ensemble_adds_members_that_differ_in_nothing_else(plan):
    stages = by_stage(plan(overrides=["student.teachers=3"]))
    assert len(stages["teacher"]) == 12
    student = stages["student"][0]
    members = [c for c in stages["teacher"] if c.config_id in student.teachers]
    assert sorted(c.values["member"] for c in members) == [0, 1, 2]
    assert len({tuple((k, v) for k, v in c.values.items() if k != "member") for c in members}) == 1
    assert all(len(c.teachers) == 1 for c in stages["attention"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("references: [bag_label, attention, oracle]", "references: [orakel]"), ["references", "oracle"]),
        (("plain: {student: {alpha: 0.0}}", "plain: {teacher: {steps: 5}}"), ["methods.plain.teacher", "student only"]),
        (("vat: {teacher: {lambda_adv: 1.0}}", "vat: {student: {alpha: 1}}"), ["teachers.vat.student", "teacher only"]),
        (("alpha: 0.0", "alpha: -1"), ["methods.plain.student.alpha", "-1", "≥ 0"]),
        (
            ("alpha: 0.0", "start: teacher, network: resnet"),
            ["s.yaml: student.start: teacher needs the teacher's network"],
        ),
        (("  none: {}\n  vat: {teacher: {lambda_adv: 1.0}}\n", ""), ["teachers: empty"]),
        (("student: {steps: 50,", "student: {step: 50,"), ["student.step", "did you mean 'steps'"]),
    ],
)
def test_mistakes_are_named(plan, change, words):
    assert change[0] in SPACE
    text = SPACE.replace(*change)
    with pytest.raises(UserError) as error:
        plan(text)
    assert all(word in str(error.value) for word in words), error.value


def test_references_without_students_are_refused(tmp_path):
    (tmp_path / "t.yaml").write_text("description: x\nmethods: {none: {}}\nreferences: [oracle]\n")
    with pytest.raises(UserError, match="references: only a space of students"):
        load_space(tmp_path / "t.yaml")


def test_a_bare_key_of_two_sections_is_ambiguous_only_with_students(plan, tmp_path):
    with pytest.raises(UserError, match=r"teacher\.steps, student\.steps"):
        plan(overrides=["steps=5"])
    (tmp_path / "t.yaml").write_text("description: x\nmethods: {none: {}}\n")
    assert load_space(tmp_path / "t.yaml", ["steps=5"]).sections["teacher"]["steps"] == 5
