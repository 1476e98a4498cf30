"""How many labels a network rests on, and that those it is said not to use have no say."""

import dataclasses

import numpy as np
import pytest
from fitted_comparison import assert_same

from d2l_study.learning import StudentConfig, TeacherConfig, fit_student, fit_teacher, teacher_targets
from d2l_study.learning.labels_used import labels_used
from d2l_study.learning.references import fit_reference
from d2l_study.learning.teacher_model import teacher_model


def used(stage, teacher=None, student=None):
    sections = {
        "teacher": TeacherConfig(**teacher or {}).to_dict(),
        "student": StudentConfig(**student or {}).to_dict(),
    }
    return labels_used(stage, sections, 50, 25)


@pytest.mark.parametrize(
    ("stage", "teacher", "student", "expected"),
    [
        ("teacher", {}, {}, 75), ("teacher", {"select": "loss"}, {}, 75), ("teacher", {"select": "last"}, {}, 50),
        ("teacher", {"steps": 100, "eval_every": 100}, {}, 50),  # one validation, one snapshot
        ("attention", {}, {}, 75), ("attention", {"select": "last"}, {}, 50),
        ("student", {}, {"select": "last"}, 75),  # through its teacher
        ("student", {"select": "last"}, {}, 75), ("student", {"select": "last"}, {"select": "last"}, 50),
        ("student", {"select": "last"}, {"select": "loss"}, 50),  # the distillation loss asks the teacher alone
        ("bag_label", {"select": "last"}, {"select": "loss"}, 75), ("oracle", {}, {"select": "last"}, 50),
        ("cam", {}, {}, 75), ("peak", {}, {"select": "last"}, 50),
        ("matched", {}, {}, 75), ("pooled", {"select": "last"}, {}, 50), ("smoothed", {}, {}, 75),
        ("no_teacher", {}, {"select": "last", "lambda_distill": 0}, 50),
        ("no_teacher", {}, {"select": "loss", "lambda_distill": 0}, 75),
        ("student", {}, {"select": "last", "lambda_distill": 0}, 50),  # its teacher is not asked
        ("student", {}, {"select": "last", "lambda_distill": 0, "start": "teacher"}, 75),
        ("student", {"select": "last"}, {"select": "loss", "lambda_distill": 0}, 75),
    ],
)  # fmt: skip
def test_validation_labels_count_where_they_chose(stage, teacher, student, expected):
    assert used(stage, teacher, student) == expected


def test_what_is_not_known_is_not_said():
    sections = {"teacher": TeacherConfig().to_dict()}
    assert labels_used("teacher", sections, 50, None) is None
    assert labels_used("teacher", {"teacher": TeacherConfig(select="last").to_dict()}, 50, None) == 50


def other_validation_labels(replicate):
    """The replicate with all labels of its validation bags turned."""
    label = 1 - replicate.val.label
    return dataclasses.replace(replicate, val=dataclasses.replace(replicate.val, label=label, true_label=label))


def without_validation(fitted):
    """The result but for the figures on validation bags, and those at the threshold that they set."""

    def kept(values):
        return {k: v for k, v in values.items() if not (k.startswith("val_bag") or "tuned" in k or "threshold" in k)}

    more = {"curve": [kept(point) for point in fitted.curve], "metrics": kept(fitted.metrics)}
    return dataclasses.replace(fitted, **more, **({"generations": []} if hasattr(fitted, "generations") else {}))


@pytest.mark.parametrize("average", [0.0, 0.7])
def test_with_the_last_snapshot_no_validation_label_has_a_say(make_replicate, tiny, average):
    replicate = make_replicate(0)
    turned = other_validation_labels(replicate)
    config = dataclasses.replace(tiny, select="last", patience=1, weight_average=average)
    teacher, other = (fit_teacher(config, [r])[0] for r in (replicate, turned))
    assert teacher.best_step == config.steps
    assert teacher.metrics["val_bag_auc"] == pytest.approx(
        1 - other.metrics["val_bag_auc"]
    )  # it is reported all the same
    assert_same(without_validation(teacher), without_validation(other))
    model = teacher_model(config, replicate)
    student = StudentConfig(
        feature_width=16, steps=12, batch_bags=3, eval_every=4, select="last", patience=1, weight_average=average
    )
    one, two = (
        fit_student(student, [r], {0: [teacher_targets(model, teacher.params, r)]})[0] for r in (replicate, turned)
    )
    assert_same(without_validation(one), without_validation(two))
    one, two = (fit_reference("bag_label", student, [r])[0] for r in (replicate, turned))
    assert all(np.array_equal(one.params[name], two.params[name]) for name in one.params)


def test_a_student_chosen_by_distillation_loss_asks_its_teacher_alone(make_replicate, tiny):
    replicate = make_replicate(0)
    (teacher,) = fit_teacher(dataclasses.replace(tiny, select="last"), [replicate])
    model = teacher_model(tiny, replicate)
    student = StudentConfig(feature_width=16, steps=12, batch_bags=3, eval_every=2, select="loss")
    one, two = (
        fit_student(student, [r], {0: [teacher_targets(model, teacher.params, r)]})[0]
        for r in (replicate, other_validation_labels(replicate))
    )
    assert_same(without_validation(one), without_validation(two))
