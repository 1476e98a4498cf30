"""The controls that a space of students makes by itself: matched, no_soft_labels, pooled, smoothed, no_teacher."""

import dataclasses
import re

import pytest

from d2l_study.cli.entry import main
from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig
from d2l_study.learning.student_config import SmoothingConfig
from d2l_study.study.plan.configurations import STAGES, configurations
from d2l_study.study.plan.cost import work, work_of
from d2l_study.study.plan.plan import Plan
from d2l_study.study.space.keys import REFERENCES, TEACHING, WITHOUT_WEIGHTS
from d2l_study.study.space.load import load_space
from d2l_study.study.space.training_length import sections_in_steps
from d2l_study.study.trial.stages import FIT_FUNCTIONS

SPACE = """
description: students
data: {num_bags: [50, 100]}
teacher: {steps: 100, instances_per_bag: LIMIT}
student: {steps: 60, eval_every: 20, batch_bags: 2, temperature: [1, 2]}
teachers:
  none: {}
  vat: {teacher: {lambda_adv: 1.0}}
methods:
  plain: {student: {alpha: 0.0, augment: none}}
  noisy: {student: {dropout: 0.5, generations: 3}}
references: [matched, pooled, no_teacher, bag_label]
"""


@pytest.fixture
def planned(tmp_path):
    def make(text=SPACE, limit="null"):
        (tmp_path / "s.yaml").write_text(text.replace("LIMIT", limit))
        return configurations(load_space(tmp_path / "s.yaml"), "sum")

    return make


def by_stage(found):
    stages = {}
    for c in found:
        stages.setdefault(c.stage, []).append(c)
    return stages


def test_every_stage_is_known_everywhere():
    assert STAGES[:3] == (*TEACHING, "student") and STAGES[3:] == REFERENCES
    assert set(FIT_FUNCTIONS) == set(STAGES) and set(WITHOUT_WEIGHTS) < set(REFERENCES)
    from analysis.rows import stages
    from d2l_study.inference import model_card, model_file

    assert set(stages.REFERENCES) == set(REFERENCES) == set(stages.MEANINGS)
    assert TEACHING == (stages.TEACHER, stages.PART_TEACHER)
    assert set(model_file.STAGES) == set(STAGES) - set(WITHOUT_WEIGHTS) == set(model_card._STAGES)


def test_a_matched_teacher_serves_all_students_that_need_it(planned):
    stages = by_stage(planned())
    assert {stage: len(found) for stage, found in stages.items()} == {
        "teacher": 4,
        "student": 16,
        "matched": 2 * 2 * 2,
        "pooled": 4,
        "no_teacher": 2 * 2,
        "bag_label": 2,
    }  # fmt: skip  -- the two temperatures share their controls
    matched = {c.config_id: c for c in stages["matched"]}
    teachers = {c.config_id: c for c in stages["teacher"]}
    for c in stages["student"]:
        own, teacher = matched[c.controls["matched"]], teachers[c.teachers[0]]
        assert own.sections["data"] == c.sections["data"] and not own.teachers and not own.teaches
        noisy = c.student_method == "noisy"
        assert own.sections["teacher"] == dataclasses.replace(
            teacher.sections["teacher"], steps=100 + 2 * 60 * (3 if noisy else 1), eval_every=52 if noisy else 74,
            dropout=0.5 if noisy else 0.0, augment="affine" if noisy else "none",
        )  # fmt: skip
        assert own.method == f"matched of {c.teacher_method}" and own.teacher_method == c.teacher_method
    assert {c.controls.get("matched") for c in stages["student"]} == set(matched)
    assert len({c.label for c in stages["matched"]}) == 8  # told apart by n, and by what follows from the students
    entries = Plan(planned(), 3).entries()
    assert all(("matched_id" in entry) == (entry["stage"] == "student") for entry in entries)


def test_a_student_names_its_own_rows_among_several_of_a_kind(planned):
    text = SPACE.replace("[matched, pooled, no_teacher, bag_label]", "[smoothed, no_teacher]").replace(
        "methods:", "methods:\n  near: {student: {neighbours: 2}}\n  wide: {student: {neighbours: 6, steps: 120}}"
    )
    stages = by_stage(planned(text))
    smoothed, alone = ({c.config_id: c for c in stages[stage]} for stage in ("smoothed", "no_teacher"))
    assert len(smoothed) > len(stages["teacher"]) and len(alone) > 2
    for c in stages["student"]:
        student = c.sections["student"]
        assert (
            alone[c.controls["no_teacher"]].sections["student"] == sections_in_steps(c.sections)["student"].no_teacher()
        )
        assert ("smoothed" in c.controls) == (student.neighbours > 0)
        if student.neighbours:
            own = smoothed[c.controls["smoothed"]]
            assert own.sections["smoothing"].neighbours == student.neighbours and own.teachers == c.teachers
    entries = {e["config_id"]: e for e in Plan(planned(text), 3).entries()}
    assert all(entries[c.config_id]["no_teacher_id"] == c.controls["no_teacher"] for c in stages["student"])


def test_instances_are_counted_where_steps_see_parts_of_bags(planned):
    (one, *_), *_ = (by_stage(planned(limit="2"))["matched"],)
    bags = one.sections["data"].mean_instances(None)
    assert one.sections["teacher"].steps == 100 + -int(-(60 * 2 * bags / 2) // 1)
    assert one.sections["teacher"].instances_per_bag == 2


def test_pooled_reads_the_first_teacher_and_no_teacher_has_none(planned):
    stages = by_stage(planned(SPACE.replace("temperature: [1, 2]", "teachers: 2")))
    firsts = {c.config_id for c in stages["teacher"] if c.sections["teacher"].member == 0}
    assert {c.teachers for c in stages["pooled"]} == {(one,) for one in firsts}
    assert {c.method for c in stages["pooled"]} == {"pooled of none", "pooled of vat"}
    assert all(c.sections["teacher"].member == 0 for c in stages["matched"])
    assert {c.sections["student"] for c in stages["no_teacher"]} == {
        StudentConfig(steps=60, eval_every=20, batch_bags=2, lambda_distill=0, temperature=1, alpha=1, augment="none"),
        StudentConfig(steps=180, eval_every=20, batch_bags=2, lambda_distill=0, temperature=1, alpha=1, dropout=0.5),
    }
    assert all(not c.teachers for c in stages["no_teacher"])


def test_bag_labels_have_the_budget_of_all_generations_on_the_robust_recipe(planned):
    """On the settings of version 1 references keep their ids: one generation's steps."""
    text = SPACE.replace("temperature: [1, 2]", "generations: 3")
    for recipe, steps in (("", 60), ("recipe: defaults\n", 60), ("recipe: robust\n", 180)):
        stages = by_stage(planned(text.replace("data:", f"{recipe}data:", 1)))
        assert {c.sections["student"].steps for c in stages["bag_label"]} == {steps}
        assert {c.sections["student"].steps for c in stages["no_teacher"]} == {180}
        assert {c.sections["student"].generations for c in stages["bag_label"]} == {1}
    for recipe, least in (("", 60), ("recipe: robust\n", 180)):  # an own length in epochs
        own = text.replace("steps: 60", "epochs: 2, min_steps: 60").replace("data:", f"{recipe}data:", 1)
        assert min(c.sections["student"].steps for c in by_stage(planned(own))["bag_label"]) == least


def test_controls_change_no_other_id(planned):
    bare = SPACE.replace("references: [matched, pooled, no_teacher, bag_label]", "references: [bag_label]")
    ids = {(c.stage, c.config_id) for c in planned(bare)}
    assert ids == {(c.stage, c.config_id) for c in planned() if c.stage in ("teacher", "student", "bag_label")}
    assert all(c.controls.get("matched") is None for c in planned(bare))


def test_students_from_their_teachers_weights_stand_beside_the_same_without_soft_labels(planned, tmp_path, capsys):
    """Those from new weights have no such row, nor those that learn from no soft labels themselves; `plan` says so."""
    text = SPACE.replace("no_teacher", "no_soft_labels").replace("LIMIT", "null").replace(
        "methods:", "methods:\n"
        "  moved: {student: {start: teacher, alpha: 0.0, beta: 0.5, generations: 2, mixup: 0.2}}\n"
        "  bare: {student: {start: teacher, lambda_distill: 0, alpha: 1}}",
    ).replace("num_bags: [50, 100]", "num_bags: 50").replace(", temperature: [1, 2]", "")  # fmt: skip
    stages = by_stage(planned(text))
    own = {c.config_id: c for c in stages["no_soft_labels"]}
    assert len(own) == 2  # of either teacher
    entries = {e["config_id"]: e for e in Plan(planned(text), 3).entries()}
    for c in stages["student"]:
        assert ("no_soft_labels" in c.controls) == (c.student_method == "moved")
        if c.student_method == "moved":
            other = own[c.controls["no_soft_labels"]]
            assert other.teachers == c.teachers and other.method == f"no_soft_labels of {c.teacher_method}"
            assert other.sections["student"] == StudentConfig(
                steps=60, eval_every=20, batch_bags=2, start="teacher", generations=2, lambda_distill=0, alpha=1,
                beta=0.5, temperature=1,
            )  # fmt: skip
            assert entries[c.config_id]["no_soft_labels_id"] == other.config_id
    assert main(["plan", "--space", str(tmp_path / "s.yaml")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no row no_soft_labels stands beside them: none → bare, none → plain," in said


def test_of_an_ensemble_the_first_teacher_gives_the_weights(planned):
    text = SPACE.replace("no_teacher", "no_soft_labels").replace("temperature: [1, 2]", "teachers: 2, start: teacher")
    stages = by_stage(planned(text.replace("LIMIT", "null").replace("{dropout: 0.5,", "{dropout: 0.5, cross_fit: 2,")))
    firsts = {c.config_id for c in stages["teacher"] if c.sections["teacher"].member == 0}
    assert {c.teachers for c in stages["no_soft_labels"]} == {(one,) for one in firsts}
    assert all(c.sections["student"].teachers == 1 for c in stages["no_soft_labels"])
    assert len({c.label for c in stages["no_soft_labels"]}) == len(stages["no_soft_labels"]) == 8


def test_smoothed_belongs_to_students_with_neighbours(planned):
    text = SPACE.replace("no_teacher", "smoothed").replace("LIMIT", "null")
    with pytest.raises(UserError, match=r"references: smoothed averages .* give student.neighbours"):
        planned(text)
    stages = by_stage(planned(text.replace("{dropout: 0.5,", "{neighbours: [0, 4, 8], dropout: 0.5,")))
    assert {(c.method, c.sections["smoothing"].neighbours) for c in stages["smoothed"]} == {
        ("smoothed of none", 4), ("smoothed of none", 8), ("smoothed of vat", 4), ("smoothed of vat", 8)
    }  # fmt: skip
    assert all(c.values["neighbours"] == c.sections["smoothing"].neighbours for c in stages["smoothed"])
    assert stages["smoothed"][0].sections["smoothing"] == SmoothingConfig(4)
    assert "neighbours=4" in stages["smoothed"][0].label


def test_what_reads_a_teacher_costs_its_evaluation_and_matched_its_training(planned):
    stages = by_stage(planned())
    for c in stages["pooled"]:
        found = work_of(c.values, stage=c.stage)
        assert (found.steps, found.training, found.validation) == (0, 0, 0) and found.test > 0
    for c in stages["student"]:
        teacher = next(t for t in stages["teacher"] if t.config_id == c.teachers[0])
        matched = next(m for m in stages["matched"] if m.config_id == c.controls.get("matched"))
        assert work(matched) > work(teacher)


def test_a_plan_says_how_much_training_sees(planned, tmp_path, capsys, monkeypatch):
    """Bags of 10 on average: 100 steps of 1 bag; 60 steps of 2 bags, once or in 3 generations."""
    planned()
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--space", "s.yaml"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "teachers 1,000, students 1,200 to 3,600, matched teachers 2,200 to 4,600" in said
    text = SPACE.replace("no_teacher", "smoothed").replace("LIMIT", "null").replace("[50, 100]", "50")
    text = text.replace("temperature: [1, 2]", "temperature: 1").replace("{dropout: 0.5,", "{neighbours: 4,")
    data = "data: {dataset: colon_synthetic, images: 12, side: 100, nuclei: 12.0, folds: 3}\n"
    text = text.replace("data: {num_bags: 50}\n", data).replace("student: {", "student: {augment: dihedral, ")
    planned(text.replace(", augment: none", ""))
    assert main(["plan", "--space", "s.yaml"]) == 0
    said = capsys.readouterr().out
    assert "no smoothed teacher stands beside them: none → plain, vat → plain" in " ".join(said.split())


def test_a_plan_counts_and_names_part_teachers(planned, tmp_path, capsys, monkeypatch):
    """Two arms of teachers with 3 parts each; the two temperatures share them, and epochs are those of all bags."""
    text = SPACE.replace("steps: 100, instances_per_bag: LIMIT", "epochs: 2").replace(
        "{steps: 60", "{cross_fit: 3, steps: 60"
    )
    stages = by_stage(planned(text))
    assert len(stages["part_teacher"]) == 2 * 2 * 3 and len(stages["student"]) == 16
    teachers = {c.config_id: c for c in stages["teacher"]}
    for c in stages["student"]:
        whole, *parts = c.teachers
        assert len(parts) == 3
        for part in (one for one in stages["part_teacher"] if one.config_id in parts):
            assert part.sections["teacher"] == teachers[whole].sections["teacher"]
            assert part.sections["teacher"].steps == 2 * c.values["num_bags"] and part.values["epochs"] == 2
            assert work_of(part.values, stage=part.stage) == work_of(teachers[whole].values)
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--space", "s.yaml"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "12 part teachers among the trials, in no table; each sees 1,000 to 2,000 instances in training" in said
    assert "part_teacher of vat" in said


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    """What `plan` says of a space, given as text, that it refuses."""

    def refused(text):
        (tmp_path / "s.yaml").write_text(text)
        monkeypatch.chdir(tmp_path)
        assert main(["plan", "--space", "s.yaml"]) == 2
        return " ".join(capsys.readouterr().err.split())

    return refused


@pytest.mark.parametrize(("keys", "words"), [
    ("num_bags: 12, prevalence: 0.25", "5 parts .* replicate 0 of data set mnist have 3 positive ones"),
    ("num_bags: 12, label_noise: 0.2", "5 parts .* replicate 3 of data set mnist have 4 positive ones"),
    ("dataset: colon_synthetic, images: 12, side: 60, nuclei: 4.0, folds: 3", "5 parts .* have 2 negative ones"),
])  # fmt: skip
def test_too_few_bags_of_a_class_are_refused_before_work_starts(keys, words, refusal):
    text = (
        f"description: few\ndata: {{{keys}}}\nreplicates: 10\nmethods: {{one: {{}}}}\n"
        "student: {cross_fit: [2, 5], augment: none}\n"
    )
    assert re.search(f"student.cross_fit: {words}", refusal(text))


@pytest.mark.parametrize(("parts", "words"), [
    ("{low: 0, high: 4}", r"student.cross_fit: \[0, 4\] \(method teacher → one\) holds 1, which is no number of parts"),
    ("{low: 2, high: 60}", "student.cross_fit: 60 parts need as many bags .* have 10 negative ones"),
    ("{choices: [0, 2, 60]}", "student.cross_fit: 60 parts need as many bags .* have 10 negative ones"),
])  # fmt: skip
def test_a_search_for_the_number_of_parts_is_checked_at_its_bounds(parts, words, refusal):
    text = (
        f"description: search\ndata: {{num_bags: 20}}\nstudent: {{cross_fit: {parts}}}\nmethods: {{one: {{}}}}\n"
        "search: {method: tpe, trials: 12}\n"
    )
    assert re.search(words, refusal(text))


def test_a_plan_says_what_of_a_space_nothing_reads(tmp_path, capsys):
    text = """
description: idle
data: {num_bags: 20, val_bags: 4, test_bags: 4, unlabelled_bags: 30}
teacher: {pooling: instance_max, steps: 20, min_steps: 30, patience: 5, select: last, lambda_noise: 0}
student: {lambda_distill: 0, temperature: 3, cross_fit: 0, alpha: 1, steps: 20}
teachers: {none: {teacher: {epsilon: 3}}}
methods: {one: {}}
references: [attention, pooled]
"""

    def plan(text):
        (tmp_path / "s.yaml").write_text(text)
        assert main(["plan", "--space", str(tmp_path / "s.yaml"), "--root", str(tmp_path / "runs")]) == 0
        return " ".join(capsys.readouterr().out.split())

    said = plan(text)
    assert (
        "nothing reads data.unlabelled_bags 30 (lambda_adv 0 and unlabelled false), teacher.min_steps 30 (epochs "
        "null), teacher.patience 5 (select last), teachers.none.teacher.epsilon 3 (lambda_adv 0), student.temperature "
        "3 (lambda_distill 0)"
    ) in said
    assert "no teacher pools by attention, so that no row attention stands" in said
    assert "recipe: none is named" in said
    said = plan(
        text.replace("description", "recipe: defaults\ndescription").replace("instance_max", "attention")
        .replace("unlabelled_bags: 30", "positive_digit: 8").replace("temperature: 3, ", "")
        .replace("min_steps: 30, patience: 5, ", "").replace("{epsilon: 3}", "{epsilon: 3, lambda_adv: 1}")
    )  # fmt: skip
    assert "nothing reads" not in said and "no row attention" not in said and "none is named" not in said
