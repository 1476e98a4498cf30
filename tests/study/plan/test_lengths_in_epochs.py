"""Spaces whose lengths are in epochs: each configuration has the steps that its own bags make of them."""

from __future__ import annotations

import pytest

from d2l_study.errors import UserError
from d2l_study.study.commands.plan_summary import show_plan
from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
from d2l_study.study.commands.trial_requests import make_trial_requests
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.plan.cost import work
from d2l_study.study.plan.data_checksums import DataChecksums
from d2l_study.study.space.load import load_space

GRID = """
description: length and number of bags apart
data: {num_bags: [50, 500]}
teacher: {epochs: 20, min_steps: 2000, batch_bags: 4}
methods: {none: {}, vat: {teacher: {lambda_adv: 1.0}}}
"""
STUDENTS = """
description: students
data: {num_bags: [50, 500]}
teacher: {epochs: 10}
student: {epochs: [2, 4], batch_bags: 4, generations: 2}
methods: {plain: {}, own: {student: {alpha: 0.0}}}
references: [bag_label, attention]
"""
FOLDS = """
description: folds
data: {dataset: colon_synthetic, images: 14, side: 60, nuclei: 6, folds: 4}
teacher: {epochs: 30, feature_width: 16, attention_width: 8}
methods: {none: {}, vat: {teacher: {lambda_adv: 1.0}}}
replicates: 4
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("D2L_CACHE", str(tmp_path_factory.getbasetemp() / "lengths"))


@pytest.fixture
def space(tmp_path):
    def make(text, overrides=()):
        (tmp_path / "s.yaml").write_text(text)
        return load_space(tmp_path / "s.yaml", overrides)

    return make


def test_each_configuration_has_the_steps_of_its_own_bags(space):
    found = configurations(space(GRID), "sum")
    steps = {(c.method, c.values["num_bags"]): (c.values["steps"], c.values["eval_every"]) for c in found}
    assert steps == {(m, n): s for m in ("none", "vat") for n, s in ((50, (2000, 200)), (500, (2500, 250)))}
    assert {(c.values["epochs"], c.values["min_steps"]) for c in found} == {(20, 2000)}
    assert found[0].varied == ("num_bags", "lambda_adv") and found[0].label == "none n=50"


def test_the_ids_are_those_of_the_same_length_in_steps(space):
    """Whoever trains has a length in steps, so results are shared whichever way it was written."""
    ids = {c.values["num_bags"]: c.config_id for c in configurations(space(GRID), "sum") if c.method == "none"}
    for n, steps in ((50, 2000), (500, 2500)):
        text = GRID.replace("epochs: 20, min_steps: 2000", f"steps: {steps}, eval_every: {steps // 10}")
        (plain,) = (c for c in configurations(space(text), "sum") if c.method == "none" and c.values["num_bags"] == n)
        assert plain.config_id == ids[n] and work(plain) > 0
        assert plain.sections["teacher"].steps == steps and plain.values["epochs"] is None


def test_students_references_and_their_teachers_count_their_own(space):
    found = configurations(space(STUDENTS), "sum")
    for c in found:
        n = c.values["num_bags"]
        if c.stage in ("teacher", "student", "attention"):
            assert (c.values["steps"], c.values["epochs"]) == (10 * n, 10)
        if c.stage in ("student", "bag_label"):
            rounds = {50: 13, 500: 125}[n]
            assert c.values["student_epochs"] in (2, 4)
            assert c.values["student_steps"] == c.values["student_epochs"] * rounds
    students = [c for c in found if c.stage == "student"]
    assert len({c.config_id for c in students}) == 8 and "student_epochs" in students[0].varied
    assert "student_epochs=4" in students[-1].label and "steps" not in students[-1].label


def test_a_reference_has_the_length_that_all_students_share(space):
    own = STUDENTS.replace("epochs: [2, 4], ", "").replace("alpha: 0.0", "alpha: 0.0, epochs: 3")
    found = {c.stage: c for c in configurations(space(own), "sum")}
    assert found["bag_label"].values["student_steps"] == 600 and found["bag_label"].values["student_epochs"] is None


def test_folds_have_one_length(space):
    made = configurations(space(FOLDS), DataChecksums())
    assert [c.values["steps"] for c in made] == [210, 210]  # 7 of 14 images train in the mean


TWINS = """
description: x
recipe: robust
data: {num_bags: [50, 500]}
teachers: {none: {}, short: {teacher: {epochs: 12}}}
student: {start: teacher, steps: 300}
methods: {s: {}, l0: {student: {lambda_distill: 0}}, f: {student: {lambda_distill: 0, start: fresh}}}
references: [matched, no_soft_labels, no_teacher, oracle]
"""
"""Students that a reference trains as well, of teachers with and without the floor of the recipe."""


def test_plan_says_how_many_steps_epochs_are(space, tmp_path, capsys):
    def shown(text, *overrides):
        (tmp_path / "s.yaml").write_text(text)
        study = prepare_study(RunOptions(str(tmp_path / "s.yaml"), overrides=overrides, root=str(tmp_path / "runs")))
        predicted = show_plan(study)
        return study, predicted.seconds, capsys.readouterr().out

    study, seconds, said = shown(GRID)
    assert "  teacher: 20 epochs, at least 2000 steps: 2000, 2500 steps\n" in said
    assert {r.steps for r in make_trial_requests(study, 1, "x")[0]} == {2000, 2500}
    assert {r.interval for r in make_trial_requests(study, 1, "x")[0]} == {200, 250}
    assert {e["values"]["steps"] for e in study.plan.entries()} == {2000, 2500}
    _, longer, _ = shown(GRID.replace("epochs: 20", "epochs: 80"))
    assert longer > 2 * seconds
    _, _, said = shown(STUDENTS)
    assert "  teacher: 10 epochs: 500, 5000 steps\n" in said
    assert "  student: 2, 4 epochs: 26, 52, 250, 500 steps of each generation\n" in said
    _, _, said = shown(GRID.replace("epochs: 20, min_steps: 2000, ", ""))
    assert "epochs" not in said
    assert "min_steps" not in said
    _, _, said = shown(TWINS)
    words = " ".join(said.split())
    assert "varied: num_bags ∈ {50, 500}; lambda_distill ∈ {0, 1}; start ∈ {teacher, fresh}; epochs ∈ {" in words
    assert "null" in words and "None" not in words
    assert "teacher: 12 epochs: 156, 1500 steps note: the recipe's floor, min_steps 1800, goes with its own" in words
    assert "teacher: 24 epochs, at least 1800 steps: 1800, 3000 steps instances" in words
    assert "132,000, no_soft_labels 12,000, no_teacher 12,000, oracle 12,000" in words
    for start, reference, arm in (("fresh", "no_teacher", "f"), ("teacher", "no_soft_labels", "l0")):
        assert (f"note: lambda_distill 0 with start {start} is what {reference} trains, so the same may be trained "
                f"twice: none → {arm} n=50, ") in words  # fmt: skip
    _, _, said = shown(TWINS.replace("{s: {}, l0:", "{l0:"))  # no student has a row no_soft_labels
    assert "is what no_teacher trains" in said and "is what no_soft_labels trains" not in said
    search = GRID.replace("batch_bags: 4", "batch_bags: 4, learning_rate: {low: 1.0e-4, high: 1.0e-3, log: true}")
    _, _, said = shown(search.replace("[50, 500]", "50") + "search: {method: tpe, trials: 4}\n")
    assert "  teacher: 20 epochs, at least 2000 steps: 2000 steps\n" in said


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        (GRID.replace("epochs: 20", "epochs: 20, steps: 100"), [],
         r"s.yaml: teacher.steps: 100 and epochs: 20 both say how long training is; expected one of them"),
        (GRID.replace("lambda_adv: 1.0", "steps: 100"), [], r"teacher.steps: 100 and epochs: 20 both say"),
        (GRID, ["teacher.steps=100", "teacher.epochs=20"], r"--set teacher.steps: 100 and epochs: 20 both say how"),
        (GRID.replace("epochs: 20", "epochs: 2.5"), [], r"s.yaml: teacher.epochs: 2.5 is not allowed"),
        (GRID.replace("epochs: 20", "steps: null"), [], r"s.yaml: teacher.steps: null is not allowed; expected"),
        (STUDENTS.replace("epochs: [2, 4]", "epochs: [2, 4], steps: 9"), [], r"student.steps: 9 and epochs: 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_answered_with_the_key(space, text, overrides, said):
    with pytest.raises(UserError, match=said):
        space(text, overrides)


def test_a_length_that_is_set_replaces_that_of_the_space(space):
    def lengths(text, *overrides):
        (_, sections), *_ = space(text, overrides).points()
        return [getattr(sections["teacher"], key) for key in ("steps", "epochs", "min_steps")]

    assert lengths(GRID, "teacher.steps=100") == [100, None, 1]
    in_steps = GRID.replace("epochs: 20, min_steps: 2000", "steps: 700")
    assert lengths(in_steps, "teacher.epochs=3")[1:] == [3, 1]
    assert lengths(in_steps, "teacher.epochs=3", "teacher.min_steps=90")[1:] == [3, 90]
    assert lengths(GRID, "teacher.epochs=3")[1:] == [3, 2000]


def prepared(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    return prepare_study(RunOptions(str(tmp_path / "s.yaml"), root=str(tmp_path / "runs")))


def test_a_length_that_no_training_may_have_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"teacher.epochs: 1000000 of 50 training bags are too many: steps: 13000000 is"
    ):
        prepared(tmp_path, GRID.replace("epochs: 20", "epochs: 1000000"))


def test_arms_that_the_floor_makes_equal_are_refused(tmp_path):
    text = GRID.replace("vat: {teacher: {lambda_adv: 1.0}}", "long: {teacher: {epochs: 30}}").replace("[50, 500]", "50")
    same = r"methods.none and methods.long are one configuration: epochs 20 make 2000 steps, epochs 30 make 2000 steps;"
    with pytest.raises(UserError, match=same):
        prepared(tmp_path, text)


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_a_schedule_is_checked_by_the_steps_of_epochs(tmp_path, rule):
    searched = GRID.replace("batch_bags: 4", "batch_bags: 4, epsilon: {low: 1, high: 8}, lambda_adv: 1.0")
    searched = searched.replace("vat: {teacher: {lambda_adv: 1.0}}", "sure: {teacher: {direction: power}}")
    searched = searched.replace("[50, 500]", "50") + f"search: {{method: tpe, trials: 4}}\nschedule: {rule}\n"
    assert prepared(tmp_path, searched).search is not None
    with pytest.raises(
        UserError, match=r"s.yaml: schedule: '\w+' is not allowed: of 2000 steps, validated every 2000, it"
    ):
        prepared(tmp_path, searched.replace("epochs: 20", "epochs: 20, eval_every: 2000"))
