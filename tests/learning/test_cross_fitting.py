"""Cross-fitted soft labels: the parts of the training bags, their teachers, and that none labels what it has seen."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from fitted_comparison import differ

from d2l_study.data import SyntheticColonBags
from d2l_study.data.neighbours import neighbour_means
from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, fit_student, fit_teacher, metrics, teacher_targets
from d2l_study.learning.cross_fitting import cross_fitted_targets, part_targets
from d2l_study.learning.distillation import training_soft_labels
from d2l_study.learning.instance_visits import teacher_visits
from d2l_study.learning.part_config import TrainingPart
from d2l_study.learning.prediction import Compute, Normalise, predict_bags
from d2l_study.learning.student import student_model
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.learning.training_parts import training_parts, without_part

PARTS = 3
STUDENT = StudentConfig(feature_width=16, steps=8, batch_bags=3, eval_every=4, augment="none", cross_fit=PARTS)


def part_teachers(config, replicate):
    """The part teachers of a replicate, trained one by one."""
    return [fit_teacher(config, [without_part(replicate, TrainingPart(PARTS, p))])[0] for p in range(PARTS)]


def targets_of(config, replicate, teacher, fitted):
    """The targets of the teacher of all bags, and the cross-fitted ones."""
    model = teacher_model(config, replicate)
    own = teacher_targets(model, teacher.params, replicate)
    parts = [part_targets(model, one.params, replicate, TrainingPart(PARTS, p)) for p, one in enumerate(fitted)]
    return own, parts, cross_fitted_targets(own, parts, replicate)


@pytest.fixture(scope="module")
def problem(make_replicate, tiny):
    """A replicate with its teacher, part teachers, and their targets."""
    replicate = make_replicate(1, train=11)
    (teacher,) = fit_teacher(tiny, [replicate])
    fitted = part_teachers(tiny, replicate)
    return replicate, teacher, fitted, *targets_of(tiny, replicate, teacher, fitted)


@pytest.fixture(scope="module")
def tissue():
    """A fold of synthetic tissue in which three bags each are of one patient."""
    pool = SyntheticColonBags(images=36, side=60, nuclei=5.0, folds=3).load_pool()
    pool = dataclasses.replace(pool, group=np.arange(36) // 3, group_names=tuple(f"p{i}" for i in range(12)))
    return SyntheticColonBags(images=36, folds=3).replicate(pool, 0, 1)


# ---- the parts
@pytest.mark.parametrize(("train", "parts"), [(8, 2), (11, 3), (40, 7), (10, 5)])
def test_every_bag_is_in_one_part_and_the_classes_are_even(make_replicate, train, parts):
    replicate = make_replicate(2, train=train)
    part_of = training_parts(replicate, parts)
    assert sorted(set(part_of)) == list(range(parts)) and len(part_of) == train
    for label in (0, 1):
        counts = np.bincount(part_of[replicate.train.label == label], minlength=parts)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(part_of)
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(part_of, training_parts(replicate, parts))
    assert any((part_of != training_parts(make_replicate(r, train=train), parts)).any() for r in (3, 4))


def test_the_parts_follow_the_labels_that_training_sees_and_no_true_one(make_replicate):
    replicate = make_replicate(0, train=20)
    other = dataclasses.replace(
        replicate, train=dataclasses.replace(
            replicate.train, true_label=1 - replicate.train.true_label,
            instance_label=1 - replicate.train.instance_label)
    )  # fmt: skip
    np.testing.assert_array_equal(training_parts(replicate, 4), training_parts(other, 4))


def test_no_patient_is_split_over_parts(tissue):
    group = tissue.pool.group[tissue.train.number]
    for parts in (2, 3, 4):
        part_of = training_parts(tissue, parts)
        assert all(len(set(part_of[group == one])) == 1 for one in set(group))
        assert len(set(part_of)) == parts
    with pytest.raises(UserError, match=r"cross_fit: 5 parts need as many groups of bags .* are of 4 groups"):
        training_parts(tissue, 5)


def test_patients_of_one_class_each_may_leave_no_part(tissue):
    """Two patients, one of them negative: what is outside of either's part is of one class."""
    two = dataclasses.replace(tissue.pool, group=tissue.pool.bags.label.astype(np.int64), group_names=("a", "b"))
    with pytest.raises(UserError, match="cross_fit: 2 parts leave bags of one class outside of one of them"):
        training_parts(dataclasses.replace(tissue, pool=two), 2)


def test_too_few_bags_of_a_class_are_refused_with_their_number(make_replicate):
    with pytest.raises(UserError, match=r"cross_fit: 5 parts .* have 3 negative ones \(allowed: 0 or 2 to 3\)"):
        training_parts(make_replicate(0, train=7, prevalence=0.6), 5)
    with pytest.raises(UserError, match=r"have 1 negative ones \(allowed: 0\)"):
        training_parts(make_replicate(0, train=5, prevalence=0.8), 2)


@pytest.mark.parametrize(("keys", "words"), [
    ({"cross_fit": 1}, "cross_fit: 1 part leaves no bag to train on; expected 0"),
    ({"cross_fit": -1}, "cross_fit: -1 is not allowed"),
])  # fmt: skip
def test_bad_numbers_of_parts_are_refused(keys, words):
    with pytest.raises(UserError, match=words):
        StudentConfig(**keys)
    with pytest.raises(UserError, match="part: 3 is none of 3 parts"):
        TrainingPart(3, 3)


# ---- part teachers
def test_part_teachers_differ_in_weights_and_bags_and_not_in_length(problem, tiny, make_replicate):
    replicate, teacher, fitted, *_ = problem
    part_of = training_parts(replicate, PARTS)
    first = dataclasses.replace(tiny, steps=1, eval_every=1, learning_rate=1e-12)  # as good as untrained
    initial = [one.params for one in part_teachers(first, replicate)] + [fit_teacher(first, [replicate])[0].params]
    for i, a in enumerate(initial):
        assert not any(torch.equal(a["classifier.weight"], b["classifier.weight"]) for b in initial[:i])
    for p, one in enumerate(fitted):
        own = without_part(replicate, TrainingPart(PARTS, p))
        assert one.steps_run == teacher.steps_run and len(own.train) == np.count_nonzero(part_of != p)
        assert own.val is replicate.val and own.test is replicate.test
        assert teacher_visits(tiny, own, tiny.steps) != teacher_visits(tiny, replicate, tiny.steps)
    epochs = dataclasses.replace(tiny, steps=None, eval_every=None, epochs=2)
    assert fit_teacher(epochs, [without_part(replicate, TrainingPart(PARTS, 0))])[0].steps_run == 2 * 4  # ⌈11 / 3⌉


def test_unlabelled_bags_stay_with_every_part_teacher(make_replicate):
    replicate = make_replicate(0, train=9, unlabelled=4)
    assert all(without_part(replicate, TrainingPart(3, p)).unlabelled is replicate.unlabelled for p in range(3))


def test_other_content_of_a_part_changes_the_other_parts_teachers_alone(problem, tiny):
    """The bags of part 1 get other digits, under the same labels."""
    replicate, _, fitted, *_ = problem
    train = replicate.train
    mine = training_parts(replicate, PARTS)[train.bag_of] == 1
    digits = np.where(mine, (train.instance + 1) % 6000, train.instance)
    swapped = dataclasses.replace(replicate, train=dataclasses.replace(train, instance=digits))
    for p, (before, after) in enumerate(zip(fitted, part_teachers(tiny, swapped), strict=True)):
        assert differ(before, after) == (p != 1) and (
            before.curve[-1]["train_loss"] == after.curve[-1]["train_loss"]
        ) == (p == 1)


# ---- the soft labels
def test_a_bags_soft_labels_are_those_of_the_teacher_that_has_not_seen_it(problem, tiny):
    """Recomputed by hand: each bag's own teacher reads its instances as bags of one."""
    replicate, teacher, fitted, own, _, crossed = problem
    train, model = replicate.train, teacher_model(tiny, replicate)
    part_of, compute = training_parts(replicate, PARTS), Compute()
    found, _ = training_soft_labels(STUDENT, replicate, [crossed])
    for bag, part in enumerate(part_of):
        seen = without_part(replicate, TrainingPart(PARTS, part)).train
        held = train.instance[train.offsets[bag] : train.offsets[bag + 1]]
        assert not any(np.array_equal(held, other) for other in np.split(seen.instance, seen.offsets[1:-1]))
        alone = dataclasses.replace(train.subset([bag])).singles()
        (logit,) = predict_bags(
            model, fitted[part].params, replicate.pool, [alone], Normalise.of(replicate, compute), compute
        )
        expected = metrics.probability(logit.astype(np.float64) / STUDENT.temperature)
        np.testing.assert_allclose(found[train.offsets[bag] : train.offsets[bag + 1]], expected, rtol=1e-5)
    assert not np.isclose(crossed.train_logits, own.train_logits).any()
    np.testing.assert_array_equal(crossed.val_logits, own.val_logits)  # validation bags are new to the teacher itself
    assert crossed.params is own.params is teacher.params  # which students start from


def test_neighbours_are_averaged_over_the_assembled_labels(tissue, tiny):
    config = dataclasses.replace(tiny, extractor="lenet_histology")
    (teacher,) = fit_teacher(config, [tissue])
    *_, crossed = targets_of(config, tissue, teacher, part_teachers(config, tissue))
    student = dataclasses.replace(STUDENT, neighbours=2)
    plain, _ = training_soft_labels(STUDENT, tissue, [crossed])
    found, _ = training_soft_labels(student, tissue, [crossed])
    np.testing.assert_array_equal(found, neighbour_means(plain, tissue.pool, tissue.train, 2))


def test_members_of_an_ensemble_have_part_teachers_each(problem, tiny):
    replicate, _, _, _, _, crossed = problem
    config = dataclasses.replace(tiny, member=1)
    (second,) = fit_teacher(config, [replicate])
    *_, other = targets_of(config, replicate, second, part_teachers(config, replicate))
    student = dataclasses.replace(STUDENT, teachers=2)
    found, _ = training_soft_labels(student, replicate, [crossed, other])
    each = [training_soft_labels(STUDENT, replicate, [one])[0] for one in (crossed, other)]
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-6)
    assert (each[0] != each[1]).all()


@pytest.mark.parametrize("start", ["fresh", "teacher"])
def test_a_cross_fitted_student_learns_other_labels_from_the_same_first_weights(problem, start):
    replicate, _, _, own, _, crossed = problem
    config = dataclasses.replace(STUDENT, start=start, generations=2)
    (found,) = fit_student(config, [replicate], {1: [crossed]})
    (plain,) = fit_student(dataclasses.replace(config, cross_fit=0), [replicate], {1: [own]})
    assert found.status == "done" and found.curve[0]["distill"] != plain.curve[0]["distill"]
    still = dataclasses.replace(config, learning_rate=1e-12, generations=1)
    (a,) = fit_student(still, [replicate], {1: [crossed]})
    (b,) = fit_student(dataclasses.replace(still, cross_fit=0), [replicate], {1: [own]})
    assert all(torch.allclose(a.params[name], b.params[name], atol=1e-8) for name in a.params)


def test_later_generations_learn_from_the_student_as_without_parts(problem):
    """The first student has seen all bags, and labels all of them."""
    replicate, *_, crossed = problem
    config = dataclasses.replace(STUDENT, generations=2)
    states = []
    fit_student(config, [replicate], {1: [crossed]}, checkpoint=lambda _, state: states.append(state),
                checkpoint_every=4)  # fmt: skip
    (first,) = fit_student(dataclasses.replace(config, generations=1), [replicate], {1: [crossed]})
    taught = teacher_targets(student_model(config, replicate), first.params, replicate)
    expected, _ = training_soft_labels(config, replicate, [taught])
    later = [torch.load(io.BytesIO(state), weights_only=True) for state in states]
    (target,) = {tuple(state["target"].tolist()) for state in later if state["generation"] == 2}
    np.testing.assert_array_equal(np.array(target, np.float32), expected)


# ---- what is refused
def test_teachers_that_have_seen_a_part_cannot_label_it(problem, tiny, make_replicate):
    replicate, _, _, own, parts, crossed = problem
    words = r"part 0 of 3 was not trained on exactly the bags outside of that part"
    with pytest.raises(UserError, match=words):
        cross_fitted_targets(own, [parts[1], parts[0], parts[2]], replicate)
    with pytest.raises(UserError, match=words):
        cross_fitted_targets(own, [own, *parts[1:]], replicate)
    with pytest.raises(UserError, match="part 0 of 2"):  # of another number of parts
        cross_fitted_targets(own, parts[:2], replicate)
    other = make_replicate(2, train=11)
    with pytest.raises(UserError, match="own replicate and fold only"):
        cross_fitted_targets(own, parts, other)
    fold = dataclasses.replace(parts[1], fold=3)
    with pytest.raises(UserError, match="own replicate and fold only"):
        cross_fitted_targets(own, [parts[0], fold, parts[2]], replicate)
    with pytest.raises(UserError, match="cross_fit: 3; replicate 1 was given soft labels of 0 part teachers"):
        fit_student(STUDENT, [replicate], {1: [own]})
    with pytest.raises(UserError, match="cross_fit: 0; replicate 1 was given soft labels of 3 part teachers"):
        fit_student(dataclasses.replace(STUDENT, cross_fit=0), [replicate], {1: [crossed]})
    with pytest.raises(UserError, match="no parameters"):
        part_targets(teacher_model(tiny, replicate), {}, replicate, TrainingPart(PARTS, 0))


def test_parts_that_no_label_comes_from_are_in_no_identity():
    assert "cross_fit" not in StudentConfig().identity()
    assert "cross_fit" not in StudentConfig(lambda_distill=0, cross_fit=3).identity()
    assert StudentConfig(cross_fit=3).identity()["cross_fit"] == 3
    for reference in (StudentConfig(cross_fit=3).no_teacher(), StudentConfig(cross_fit=3).without_teacher()):
        assert reference.cross_fit == 0
