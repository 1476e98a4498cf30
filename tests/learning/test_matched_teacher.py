"""The teacher matched to a student in training: its configuration by hand, and the instances that trainings see."""

import dataclasses

import numpy as np
import pytest

from d2l_study.data import MnistBags
from d2l_study.learning import StudentConfig, TeacherConfig, fit_student, fit_teacher, sequential, teacher_targets
from d2l_study.learning import student as student_module
from d2l_study.learning.instance_visits import student_visits, teacher_visits
from d2l_study.learning.matched_teacher import matched_teacher
from d2l_study.learning.teacher_model import teacher_model


def test_it_is_the_one_of_the_issue():
    """distill_confirm of the plain teacher: 1500 steps of 1 bag, and 600 steps of 4 augmented bags."""
    found = matched_teacher(TeacherConfig(steps=1500), StudentConfig(steps=600, batch_bags=4, eval_every=50))
    assert found == TeacherConfig(steps=1500 + 2400, augment="affine", eval_every=325)  # 12 validations


def test_it_is_the_teacher_with_the_students_noise_and_all_visits():
    teacher = TeacherConfig(
        steps=100, batch_bags=3, lambda_adv=0.5, mixup=0.2, select="loss", learning_rate=1e-3, dropout=0.1, member=2,
        patience=3, extractor="resnet", stochastic_depth=0.3,
    )  # fmt: skip
    student = StudentConfig(
        steps=50, batch_bags=4, generations=2, eval_every=20, augment="histology", stain_jitter=0.4, shift_pixels=1.0,
        rotation_degrees=5.0, input_noise=0.2, dropout=0.4, mixup=0.9, learning_rate=5e-3, select="last",
    )  # fmt: skip
    # 50 × 2 × 4 = 400 bags are 133.3 steps of 3 bags; the student is validated 3 times in each generation
    expected = dataclasses.replace(
        teacher, steps=100 + 134, eval_every=39, augment="histology", stain_jitter=0.4, shift_pixels=1.0,
        rotation_degrees=5.0, instance_noise=0.2, dropout=0.4, patience=0, member=0,
    )  # fmt: skip
    assert matched_teacher(teacher, student) == expected
    assert matched_teacher(teacher, dataclasses.replace(student, network="resnet", stochastic_depth=0.1)) == (
        dataclasses.replace(expected, stochastic_depth=0.1)
    )


def test_where_the_student_has_no_noise_the_teachers_own_stays():
    teacher = TeacherConfig(steps=10, augment="dihedral", dropout=0.25, instance_noise=0.1)
    found = matched_teacher(teacher, StudentConfig(steps=10, batch_bags=1, augment="none"))
    assert (found.augment, found.dropout, found.instance_noise) == ("dihedral", 0.25, 0.1)


def test_where_they_see_other_parts_of_a_bag_instances_are_counted():
    """A student's step of 2 bags of 10 instances holds as many as 5 bags of the teacher, cut to 4."""
    data = MnistBags(mean_bag_size=10, bag_size_variance=0)
    teacher, student = TeacherConfig(steps=7, instances_per_bag=4), StudentConfig(steps=9, batch_bags=2)
    seen = [data.mean_instances(one.instances_per_bag) for one in (teacher, student)]
    assert seen == [4.0, 10.0]
    assert matched_teacher(teacher, student, *seen).steps == 7 + 45


def test_the_mean_of_cut_bags_is_that_of_drawn_ones(make_replicate):
    config = MnistBags(mean_bag_size=8, bag_size_variance=9.0)
    sizes = make_replicate(0, train=4000, mean_bag_size=8, bag_size_variance=9.0).train.sizes
    for limit in (None, 1, 7, 100):
        drawn = sizes if limit is None else np.minimum(sizes, limit)
        assert config.mean_instances(limit) == pytest.approx(drawn.mean(), abs=0.15)


@pytest.mark.parametrize(("limit", "unlabelled"), [(None, 0), (3, 5)])
def test_visits_are_the_instances_that_steps_drew(make_replicate, tiny, monkeypatch, limit, unlabelled):
    seen = []

    def counted(genuine):
        def draw(*args):
            batch = genuine(*args)
            others = getattr(batch, "unlabelled", None)
            seen.append(len(batch.x) + (0 if others is None else len(others.x)))
            return batch

        return draw

    monkeypatch.setattr(sequential, "draw_teacher_batch", counted(sequential.draw_teacher_batch))
    monkeypatch.setattr(student_module, "draw_student_batch", counted(student_module.draw_student_batch))
    replicate = make_replicate(1, train=7, unlabelled=unlabelled)
    config = dataclasses.replace(
        tiny, instances_per_bag=limit, lambda_adv=0.5, lambda_noise=0.5, bag_order="alternating", member=1, patience=1,
        eval_every=1, steps=25, unlabelled_batch=2,
    )  # fmt: skip
    (teacher,) = fit_teacher(config, [replicate])
    assert teacher.steps_run < config.steps  # stopped early
    assert teacher_visits(config, replicate, teacher.steps_run) == sum(seen) > 0
    seen.clear()
    targets = {1: [teacher_targets(teacher_model(config, replicate), teacher.params, replicate, None, True)]}
    own = StudentConfig(feature_width=16, steps=9, eval_every=4, batch_bags=2, generations=2, instances_per_bag=limit,
                        unlabelled=unlabelled > 0)  # fmt: skip
    fit_student(own, [replicate], targets)
    assert student_visits(own, replicate, [9, 9]) == sum(seen) > 0


def test_the_matched_teacher_sees_as_much_as_teacher_and_student(make_replicate, tiny):
    """But for a rounded step, and for the bags that its last epoch did not come to."""
    replicate = make_replicate(0, train=30)
    student = StudentConfig(steps=31, batch_bags=4, generations=2)
    matched = matched_teacher(tiny, student)
    both = teacher_visits(tiny, replicate, tiny.steps) + student_visits(student, replicate, [31, 31])
    assert teacher_visits(matched, replicate, matched.steps) == pytest.approx(both, rel=0.03)
