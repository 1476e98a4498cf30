"""Which replicates one trial trains: all of a configuration, unless places for trials would stay empty."""

from pathlib import Path

import pytest

from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
from d2l_study.study.commands.trial_requests import make_trial_requests, trial_key

TEACHERS = """\
description: teachers
data: {num_bags: 6, mean_bag_size: 3, test_bags: 20}
teacher: {steps: 4, eval_every: 2, feature_width: 8}
methods:
  none: {}
  vat: {teacher: {lambda_adv: 1.0}}
replicates: 5
"""
STUDENTS = """\
description: one teacher and its student
data: {num_bags: 6, mean_bag_size: 3, test_bags: 20}
teacher: {steps: 4, eval_every: 2, feature_width: 8}
student: {steps: 4, eval_every: 2, feature_width: 8}
teachers: {none: {}}
methods: {student: {}}
replicates: 5
"""


def pieces(tmp_path: Path, text: str, concurrent: int) -> list[tuple[str, tuple[int, ...]]]:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    study = prepare_study(RunOptions(str(path), root=str(tmp_path / "runs")))
    requests, weights = make_trial_requests(study, concurrent, "code")
    assert len(weights) == len(requests)
    return [(request.label, request.replicates) for request in requests]


@pytest.mark.parametrize("concurrent", [1, 2])
def test_configurations_that_fill_the_places_stay_whole(tmp_path: Path, concurrent: int) -> None:
    assert sorted(pieces(tmp_path, TEACHERS, concurrent)) == [("none", (0, 1, 2, 3, 4)), ("vat", (0, 1, 2, 3, 4))]


def test_fewer_configurations_than_places_are_spread(tmp_path: Path) -> None:
    """Ten runs in four places: three of them at most in one trial."""
    found = pieces(tmp_path, TEACHERS, 4)
    assert sorted(found) == [("none", (0, 1, 2)), ("none", (3, 4)), ("vat", (0, 1, 2)), ("vat", (3, 4))]


def test_the_work_of_a_trial_is_that_of_its_training_alone(tmp_path: Path) -> None:
    """Twice the steps are twice the work, though both are tested on as many bags; what reads a teacher has none."""
    text = STUDENTS.replace("methods: {student: {}}", "methods: {student: {}}\nreferences: [attention]")
    text = text.replace("none: {}", "short: {}, long: {teacher: {steps: 8}}")
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    study = prepare_study(RunOptions(str(path), root=str(tmp_path / "runs")))
    requests, weights = make_trial_requests(study, 1, "code")
    by_label = {request.label: weights[trial_key(request)] for request in requests}
    assert by_label["long"] == pytest.approx(2 * by_label["short"]) and by_label["short"] > 0
    assert by_label["attention of long"] == 0 < by_label["long → student"]


def test_a_student_waits_for_its_teacher_and_fills_no_place_beside_it(tmp_path: Path) -> None:
    found = pieces(tmp_path, STUDENTS, 2)
    assert sorted(found[:2]) == [("none", (0, 1, 2)), ("none", (3, 4))]
    assert sorted(found[2:]) == [("none → student", (0, 1, 2)), ("none → student", (3, 4))]
    assert len(pieces(tmp_path, STUDENTS, 1)) == 2
